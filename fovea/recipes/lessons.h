#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fovea/report/figure.h"

// The hands-on chapter: questions whose answers are computed when they are asked. A lesson is data and one function;
// the command line, the tests and the offline site all read the same list.
namespace fovea::recipes {

/// A text in English and Chinese.
struct Bilingual {
  std::string en, zh;
  /// language: "en" or "zh".
  const std::string& in(const std::string& language) const { return language == "zh" ? zh : en; }
};

/// A value that the learner can change: --d 16,64.
struct LessonFlag {
  std::string name, standard;  // without the dashes; what is taken when it is not given
  Bilingual meaning;
};

/// What a lesson runs with. A flag that is not given has its standard value.
class LessonArguments {
 public:
  LessonArguments(const std::string& lesson, const std::vector<LessonFlag>& flags,
                  const std::map<std::string, std::string>& given, uint64_t seed);

  uint64_t seed() const { return seed_; }
  const std::map<std::string, std::string>& values() const { return values_; }
  // Errors of all: ArgumentError naming lesson, flag and text.
  const std::string& text(const std::string& flag) const { return values_.at(flag); }
  double number(const std::string& flag) const;
  int64_t whole(const std::string& flag, int64_t least, int64_t most) const;
  std::vector<int64_t> wholes(const std::string& flag, int64_t least, int64_t most) const;  // "1,2,4"
  std::vector<std::vector<double>> rows(const std::string& flag) const;                     // "2,0;0,2"
  [[noreturn]] void refuse(const std::string& flag, const std::string& expected) const;

 private:
  std::string lesson_;
  std::map<std::string, std::string> values_;
  uint64_t seed_;
};

/// One thing that is asked for: a number within a tolerance, or one of several words.
struct LessonAnswer {
  Bilingual asked;  // "variance of q·k at d = 128"
  double value = 0, tolerance = 0;
  std::vector<std::string> words = {};  // any of them is right; empty: a number is asked for

  bool accepts(const std::string& given) const;
  /// "128 ± 2.56", or the first word.
  std::string text() const;
};

/// What came out, all of it computed now.
struct LessonResult {
  std::vector<LessonAnswer> answers;   // the first is the question; others may be answered after a comma
  std::vector<Bilingual> found;        // what the learner's run prints
  Bilingual reason;                    // why the answer is what it is
  std::vector<report::Panel> picture;  // not empty
  int picture_columns = 1;
};

struct Lesson {
  std::string name, row;  // "budget", "P1a"
  Bilingual title, question;
  std::string equation;          // in letters of docs/notation.md
  std::string page;              // of docs/explanation, without folder
  std::vector<Bilingual> steps;  // of the solution
  std::vector<LessonFlag> flags = {};
  bool trains = false;  // minutes: only with --train
  std::string duration = "1 s";
  std::function<LessonResult(const LessonArguments&)> run;
};

/// Every lesson in the order of the chapter: a plain list.
const std::vector<Lesson>& lessons();

/// Errors   ArgumentError naming the nearest lesson.
const Lesson& find_lesson(const std::string& name);

/// Runs a lesson with the flags that were given. Errors: ArgumentError for a flag that it does not have, and of its
/// own.
LessonResult run_lesson(const Lesson& lesson, const std::map<std::string, std::string>& flags, uint64_t seed);

/// The picture as one SVG file.
std::string lesson_picture(const LessonResult& result);

/// The learner's words beside what was computed.
struct LessonVerdict {
  bool right = false;
  std::vector<bool> each;  // of the answers that were given
};
/// given: "4096" or "0,0,1", in the order of the answers; not all need be given.
/// Errors   ArgumentError: more than are asked for, or no number where one is asked for.
LessonVerdict judge(const Lesson& lesson, const LessonResult& result, const std::string& given);

std::vector<Lesson> score_lessons();   // first-attention, why-scale, budget
std::vector<Lesson> window_lessons();  // cut-a-volume, quadratic-wall, ripples
std::vector<Lesson> layer_lessons();   // free-heads, where-am-i, implicit-temperature
std::vector<Lesson> kernel_lessons();  // kernel-regression
std::vector<Lesson> spatial_lessons();  // ring, two-weights
std::vector<Lesson> trained_lessons();  // two-nodules, hot-or-cold
std::vector<Lesson> fusion_lessons();   // xor, ct-asks-pet
std::vector<Lesson> report_text_lessons();  // read-the-report
std::vector<Lesson> radiomics_lessons();  // whom-to-trust
std::vector<Lesson> prognosis_lessons();  // one-trunk
std::vector<Lesson> science_lessons();  // greens-function
std::vector<Lesson> bag_lessons();        // bag-of-digits
std::vector<Lesson> autoencoder_lessons();  // hidden-97

}  // namespace fovea::recipes
