// fovea_evaluate_probe PREDICTIONS REFERENCES OUT fovea|plain IGNORE LABEL...    (IGNORE -1: none; a region as 1+2)
// Writes the summary and prints the table: how the Python tests reach evaluate_folders().
#include <cstdio>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/recipes/evaluate.h"

int main(int count, char** a) try {
  using namespace fovea::recipes;
  if (count < 7) return 2;
  EvaluateOptions options;
  if (std::stoll(a[5]) >= 0) options.ignore_label = std::stoll(a[5]);
  std::vector<EvaluationLabel> labels;
  for (int i = 6; i < count; ++i) {
    EvaluationLabel label{a[i], {}};
    std::istringstream in(a[i]);
    for (std::string value; std::getline(in, value, '+');) label.values.push_back(std::stoll(value));
    labels.push_back(label);
  }
  const Evaluation e = evaluate_folders(a[1], a[2], labels, options);
  write_summary(a[3], e, std::string(a[4]) == "fovea");
  std::printf("%s", summary_text(e).c_str());
  return 0;
} catch (const fovea::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return int(e.code());
}
