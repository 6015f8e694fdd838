#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/isa.h"
#include "fovea/core/version.h"
#include "fovea/recipes/lesson_site.h"
#include "fovea/recipes/lessons.h"
#include "fovea/report/save_file.h"

namespace fovea::cli {

namespace {
using Json = nlohmann::ordered_json;
using recipes::Bilingual;
using recipes::Lesson;
using recipes::LessonResult;

struct LessonCommand {
  CommonOptions common;
  std::string name, answer, language = "en";
  bool solution = false, train = false;
  std::filesystem::path picture, html;
  std::map<std::string, std::string> flags;  // of all lessons; those that were given
};

bool in_chinese(const LessonCommand& a) { return a.language == "zh"; }

void list_lessons(const LessonCommand& a) {
  for (const Lesson& lesson : recipes::lessons())
    std::printf("%-21s %-7s %-6s %s\n", lesson.name.c_str(), lesson.row.c_str(), lesson.duration.c_str(),
                lesson.title.in(a.language).c_str());
}

void print_question(const LessonCommand& a, const Lesson& lesson) {
  std::printf("%s (%s)\n\n%s\n\n  %s\n\n", lesson.title.in(a.language).c_str(), lesson.row.c_str(),
              lesson.question.in(a.language).c_str(), lesson.equation.c_str());
  for (const auto& flag : lesson.flags)
    std::printf("  --%s %s   %s\n", flag.name.c_str(), flag.standard.c_str(), flag.meaning.in(a.language).c_str());
  if (!lesson.flags.empty()) std::printf("\n");
  std::fflush(stdout);
}

void print_found(const LessonCommand& a, const LessonResult& result) {
  for (const Bilingual& line : result.found) std::printf("%s\n", line.in(a.language).c_str());
}

Json in_both(const Bilingual& text) { return {{"en", text.en}, {"zh", text.zh}}; }

Json to_json(const LessonCommand& a, const Lesson& lesson, const LessonResult& result,
             const std::map<std::string, std::string>& values, double seconds) {
  Json answers = Json::array(), found = Json::array();
  for (const auto& answer : result.answers) {
    Json one = {{"asked", in_both(answer.asked)}};
    if (answer.words.empty())
      one["answer"] = answer.value, one["tolerance"] = answer.tolerance;
    else
      one["answer"] = answer.words.front(), one["accepted"] = answer.words;
    answers.push_back(one);
  }
  for (const auto& line : result.found) found.push_back(in_both(line));
  Json json = {{"lesson", lesson.name},
               {"row", lesson.row},
               {"question", in_both(lesson.question)},
               {"equation", lesson.equation},
               {"flags", values},
               {"answer", answers[0]["answer"]},
               {"tolerance", answers[0].contains("tolerance") ? answers[0]["tolerance"] : Json(0)},
               {"answers", answers},
               {"found", found},
               {"reason", in_both(result.reason)}};
  if (!a.answer.empty()) {
    const auto verdict = recipes::judge(lesson, result, a.answer);
    json["given"] = a.answer, json["right"] = verdict.right, json["right_each"] = verdict.each;
  }
  if (!a.picture.empty()) json["picture"] = a.picture.string();
  json["seconds"] = seconds, json["seed"] = a.common.seed, json["isa"] = name_of(chosen_isa());
  json["device"] = a.common.device, json["version"] = kVersion;
  return json;
}

void print_verdict(const LessonCommand& a, const Lesson& lesson, const LessonResult& result,
                   const std::string& answer) {
  const auto verdict = recipes::judge(lesson, result, answer);
  const bool zh = in_chinese(a);
  std::printf("%s\n", verdict.right ? (zh ? "正确。" : "Right.") : (zh ? "不对。" : "Wrong."));
  for (size_t i = 0; i < result.answers.size(); ++i) {
    const auto& one = result.answers[i];
    const char* mark = i >= verdict.each.size() ? " " : verdict.each[i] ? "+" : "-";
    std::printf("  %s %s: %s\n", mark, one.asked.in(a.language).c_str(), one.text().c_str());
  }
  std::printf("%s\n", result.reason.in(a.language).c_str());
}

// Asks at a terminal; nothing where there is none or the learner gives up.
std::string ask(const LessonCommand& a, const LessonResult& result) {
  if (a.common.json || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return "";
  std::printf("%s? ", result.answers[0].asked.in(a.language).c_str());
  std::fflush(stdout);
  std::string line;
  std::getline(std::cin, line);
  return line;
}

void run_one(const LessonCommand& a) {
  const Lesson& lesson = recipes::find_lesson(a.name);
  if (!a.picture.empty()) require_folder_of(a.picture);
  const recipes::LessonArguments arguments(lesson.name, lesson.flags, a.flags, a.common.seed);
  const bool checks = !a.answer.empty() || a.solution || !a.picture.empty() || a.common.json;
  // At a terminal the question comes before the run; elsewhere nothing is printed until the words are known to be
  // sound.
  const bool ahead = !a.common.json && isatty(STDOUT_FILENO);
  if (ahead) print_question(a, lesson);
  if (lesson.trains && !a.train) {
    if (checks)
      throw ArgumentError("lesson " + lesson.name + ": the answer comes from a training of " + lesson.duration +
                          "; add --train");
    if (!a.common.json && !ahead) print_question(a, lesson);
    std::printf(in_chinese(a) ? "加上 --train 开始训练（%s）。\n" : "Add --train to train (%s).\n",
                lesson.duration.c_str());
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  const LessonResult result = recipes::run_lesson(lesson, a.flags, a.common.seed);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!a.answer.empty()) recipes::judge(lesson, result, a.answer);
  if (!a.common.json && !ahead) print_question(a, lesson);
  if (!a.picture.empty()) report::save_file(a.picture, recipes::lesson_picture(result));
  if (a.common.json) {
    std::printf("%s\n", to_json(a, lesson, result, arguments.values(), seconds).dump(2).c_str());
    return;
  }
  if (a.solution) {
    for (size_t i = 0; i < lesson.steps.size(); ++i)
      std::printf("%zu. %s\n", i + 1, lesson.steps[i].in(a.language).c_str());
    std::printf("\n");
  }
  if (!a.flags.empty() || a.train || a.solution || !a.answer.empty()) {
    print_found(a, result);
    std::printf("\n");
  }
  const std::string answer = a.answer.empty() && !a.solution ? ask(a, result) : a.answer;
  if (!answer.empty()) {
    print_verdict(a, lesson, result, answer);
  } else if (a.solution) {
    for (const auto& one : result.answers)
      std::printf("  %s: %s\n", one.asked.in(a.language).c_str(), one.text().c_str());
    std::printf("%s\n", result.reason.in(a.language).c_str());
  } else {
    std::printf(in_chinese(a)
                    ? "用 --answer 回答，例如：fovea lesson %s --answer 1；--solution 给出步骤。\n"
                    : "Answer with --answer, such as: fovea lesson %s --answer 1; --solution prints the steps.\n",
                lesson.name.c_str());
  }
  if (!a.picture.empty()) std::printf(in_chinese(a) ? "图：%s\n" : "picture: %s\n", a.picture.string().c_str());
}

void run(const LessonCommand& a) {
  a.common.apply();
  if (!a.html.empty()) {
    if (!a.name.empty() || !a.answer.empty())
      throw ArgumentError("lesson: --html writes all lessons; give no name and no --answer");
    const auto pages = recipes::write_lesson_site(a.html, {a.common.seed, a.train});
    std::printf("%s\n", (a.html / "index.html").string().c_str());
    std::fprintf(stderr, "%zu lessons\n", pages);
    return;
  }
  if (!a.name.empty()) return run_one(a);
  if (!a.answer.empty() || a.solution || !a.picture.empty() || !a.flags.empty())
    throw ArgumentError("lesson: which one? fovea lesson lists them");
  if (a.common.json) {
    Json all = Json::array();
    for (const Lesson& lesson : recipes::lessons())
      all.push_back({{"lesson", lesson.name},
                     {"row", lesson.row},
                     {"title", in_both(lesson.title)},
                     {"question", in_both(lesson.question)},
                     {"trains", lesson.trains},
                     {"duration", lesson.duration}});
    std::printf("%s\n", all.dump(2).c_str());
    return;
  }
  list_lessons(a);
}
}  // namespace

void add_lesson(CLI::App& program) {
  auto a = std::make_shared<LessonCommand>();
  CLI::App* command =
      program.add_subcommand("lesson",
                             "Example: fovea lesson quadratic-wall --answer 4096\n\n"
                             "The hands-on chapter: a question, something to run and change, and your answer "
                             "beside the one computed now. Without a name: the list.");
  command->add_option("name", a->name, "the lesson; none: list them");
  command->add_option("--answer", a->answer, "your answer; several with commas, in the order asked");
  command->add_flag("--solution", a->solution, "the steps and the answer");
  command->add_option("--lang", a->language, "en or zh")->check(CLI::IsMember({"en", "zh"}))->capture_default_str();
  command->add_option("-o,--output", a->picture, "write the picture as SVG");
  command->add_option("--html", a->html, "write all lessons as an offline site into this folder");
  command->add_flag("--train", a->train, "let lessons that train do so, minutes each");
  // One option for each flag of any lesson; which lesson takes it is checked when it runs.
  std::map<std::string, std::string> takers;
  for (const Lesson& lesson : recipes::lessons())
    for (const auto& flag : lesson.flags)
      takers[flag.name] += (takers.count(flag.name) && !takers[flag.name].empty() ? ", " : "") + lesson.name;
  for (const auto& [flag, lessons] : takers)
    command->add_option_function<std::string>(
        "--" + flag, [a, flag = flag](const std::string& value) { a->flags[flag] = value; }, "of " + lessons);
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
