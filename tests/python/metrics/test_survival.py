"""Survival losses, metrics and Cox fits against scikit-survival, lifelines and the published formulas written out."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

PROBE = pathlib.Path(os.environ["FOVEA_BUILD"]) / "fovea_survival_probe"


def ask(**question):
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value.tolist() if isinstance(value, np.ndarray) else value

    run = subprocess.run([PROBE], input=json.dumps(plain(question)) + "\n", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def cohort(rng, n, tied=True):
    """Event and censoring times that share months (or none), a risk that tells something."""
    risk = rng.normal(size=n)
    event_time, censoring_time = rng.exponential(np.exp(-risk) * 10), rng.uniform(2, 25, n)
    time = np.minimum(event_time, censoring_time) + 0.5
    return {"time": np.ceil(time) if tied else time, "event": (event_time <= censoring_time).astype(float)}, risk


def structured(data):
    return np.array(list(zip(data["event"] > 0.5, data["time"])), dtype=[("event", bool), ("time", float)])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [20, 333])
def test_concordance_equals_scikit_survival(n, tied):
    from sksurv.metrics import concordance_index_censored, concordance_index_ipcw

    rng = np.random.default_rng(n)
    train, _ = cohort(rng, 2 * n, tied)
    test, risk = cohort(rng, n, tied)
    risk = np.round(risk, 1)  # ties in risk too
    index, concordant, discordant, tied_risk, _ = concordance_index_censored(test["event"] > 0.5, test["time"], risk)
    ours = ask(ask="harrell", **test, risk=risk)
    assert (ours["concordant"], ours["discordant"], ours["tied"]) == (concordant, discordant, tied_risk)
    assert ours["index"] == pytest.approx(index, abs=1e-12)
    until = float(np.quantile(train["time"], 0.8))
    theirs = concordance_index_ipcw(structured(train), structured(test), risk, tau=until)[0]
    assert ask(ask="uno", train=train, test=test, risk=risk, until=until)["index"] == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize("tied", [False, True])
def test_dynamic_auc_and_brier_score_equal_scikit_survival(tied):
    from sksurv.metrics import brier_score, cumulative_dynamic_auc, integrated_brier_score

    rng = np.random.default_rng(5)
    train, _ = cohort(rng, 400, tied)
    test, risk = cohort(rng, 150, tied)
    risk = np.round(risk, 1)
    inside = test["time"] < train["time"].max() - 1
    test, risk = {k: v[inside] for k, v in test.items()}, risk[inside]
    times = np.linspace(np.quantile(test["time"], 0.1), np.quantile(test["time"], 0.8), 7)
    auc, mean = cumulative_dynamic_auc(structured(train), structured(test), risk, times)
    ours = ask(ask="auc", train=train, test=test, risk=risk, times=times)
    assert ours["auc"] == pytest.approx(auc.tolist(), abs=1e-10)
    assert ours["mean"] == pytest.approx(mean, abs=1e-10)

    survival = np.exp(-np.exp(risk)[:, None] * times[None] / 10)
    _, scores = brier_score(structured(train), structured(test), survival, times)
    ours = ask(ask="brier", train=train, test=test, survival=survival, times=times)
    assert ours["score"] == pytest.approx(scores.tolist(), abs=1e-10)
    assert ours["integrated"] == pytest.approx(integrated_brier_score(structured(train), structured(test), survival, times), abs=1e-10)


def test_kaplan_meier_equals_lifelines():
    from lifelines import KaplanMeierFitter

    data, _ = cohort(np.random.default_rng(1), 200)
    theirs = KaplanMeierFitter().fit(data["time"], data["event"])
    ours = ask(ask="curve", **data)
    assert ours["probabilities"] == pytest.approx(theirs.predict(ours["times"]).tolist(), abs=1e-12)


LUNG = {  # R survival 3.5, lung, age + sex + ph.ecog, 227 patients: log likelihoods and coefficients
    "breslow": (-744.6928193, -729.4887052, (0.011041136, -0.551889570, 0.462947041)),
    "efron": (-744.4804558, -729.2301214, (0.011066765, -0.552612396, 0.463728475)),
}


@pytest.mark.parametrize("ties", LUNG)
def test_cox_fit_of_the_lung_trial_equals_r(ties):
    from lifelines.datasets import load_lung

    table = load_lung()[["time", "status", "age", "sex", "ph.ecog"]].dropna()
    assert len(table) == 227
    event = table["status"].to_numpy(float)
    event = (event == event.max()).astype(float)
    question = {"time": table["time"].to_numpy(float), "event": event, "x": table[["age", "sex", "ph.ecog"]].to_numpy(float), "ties": ties}
    fit = ask(ask="cox_fit", **question)
    null, reached, coefficients = LUNG[ties]
    assert fit["null_log_likelihood"] == pytest.approx(null, abs=1e-6)
    assert fit["log_likelihood"] == pytest.approx(reached, abs=1e-6)
    assert fit["coefficients"] == pytest.approx(coefficients, rel=1e-6)
    loss = ask(ask="cox_loss", **{k: question[k] for k in ("time", "event", "ties")}, risk=question["x"] @ np.array(fit["coefficients"]))
    assert -loss["loss"] == pytest.approx(fit["log_likelihood"], abs=1e-9)
    risk = question["x"] @ np.array(fit["coefficients"])
    assert ask(ask="harrell", time=question["time"], event=event, risk=risk)["index"] == pytest.approx(0.63713549, abs=1e-4)


def test_cox_fit_equals_lifelines_with_errors():
    from lifelines import CoxPHFitter
    from lifelines.datasets import load_rossi

    table = load_rossi()
    theirs = CoxPHFitter().fit(table, "week", "arrest")
    columns = list(theirs.params_.index)
    fit = ask(ask="cox_fit", time=table["week"].to_numpy(float), event=table["arrest"].to_numpy(float), x=table[columns].to_numpy(float))
    assert fit["coefficients"] == pytest.approx(theirs.params_.tolist(), rel=1e-5)
    assert fit["standard_errors"] == pytest.approx(theirs.standard_errors_.tolist(), rel=1e-5)
    assert fit["log_likelihood"] == pytest.approx(theirs.log_likelihood_, abs=1e-6)


def masses(scores):
    padded = np.concatenate([scores, np.zeros((len(scores), 1))], 1)
    e = np.exp(padded - padded.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def interval_loss(name, logits, interval, event, likelihood_weight, sigma):
    """The papers' sums, patient by patient."""
    if name == "logistic_hazard":
        h = 1 / (1 + np.exp(-logits))
        each = [-np.log(1 - h[i, :k]).sum() - np.log(h[i, k] if e else 1 - h[i, k]) for i, (k, e) in enumerate(zip(interval, event))]
        return np.mean(each)
    p = masses(np.cumsum(logits[:, ::-1], 1)[:, ::-1] if name == "mtlr" else logits)
    likelihood = np.mean([-np.log(p[i, k] if e else p[i, k + 1 :].sum()) for i, (k, e) in enumerate(zip(interval, event))])
    if name == "mtlr":
        return likelihood
    reached, ranking = np.cumsum(p, 1), 0
    for i, k in enumerate(interval):
        for j, other in enumerate(interval):
            if event[i] and (k < other or (k == other and not event[j])):
                ranking += np.exp(-(reached[i, k] - reached[j, k]) / sigma)
    return likelihood_weight * likelihood + (1 - likelihood_weight) * ranking / len(interval) ** 2


@pytest.mark.parametrize("name", ["logistic_hazard", "mtlr", "deephit"])
def test_losses_on_intervals_equal_the_sums_of_their_papers_and_their_gradients_finite_differences(name):
    rng = np.random.default_rng(2)
    logits, interval, event = rng.normal(size=(9, 5)), rng.integers(0, 5, 9), (rng.random(9) < 0.6).astype(float)
    options = {"likelihood_weight": 0.3, "sigma": 0.2}
    ours = ask(ask="interval_loss", loss=name, logits=logits, interval=interval.astype(float), event=event, **options)
    assert ours["loss"] == pytest.approx(interval_loss(name, logits, interval, event, **options), abs=1e-12)
    step, expected = 1e-5, np.zeros_like(logits)
    for at in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[at] += step
        down[at] -= step
        expected[at] = (interval_loss(name, up, interval, event, **options) - interval_loss(name, down, interval, event, **options)) / (2 * step)
    assert np.array(ours["gradient"]) == pytest.approx(expected, abs=1e-8)
    if name != "logistic_hazard":
        p = masses(np.cumsum(logits[:, ::-1], 1)[:, ::-1] if name == "mtlr" else logits)
        assert np.array(ours["survival"]) == pytest.approx(1 - np.cumsum(p, 1)[:, :-1], abs=1e-12)
