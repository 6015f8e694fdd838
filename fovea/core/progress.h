#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace fovea {

/// How progress is shown. kAuto: a bar when stderr is a terminal, nothing elsewhere. kLines: a plain line now and then,
/// for log files. kOff: nothing.
enum class ProgressMode { kAuto, kBar, kLines, kOff };

/// Mode of every Progress made later whose options say kAuto; what --no-progress sets to kOff. Default kAuto.
void set_default_progress_mode(ProgressMode mode);

struct ProgressOptions {
  ProgressMode mode = ProgressMode::kAuto;
  std::string unit = "it";      // the rate reads "3.2 it/s"
  double redraw_every_s = 0.1;  // of the bar
  double line_every_s = 30;     // of kLines
  // Replaced in tests.
  std::function<double()> clock_s;              // default: steady clock
  std::function<void(std::string_view)> write;  // default: stderr
  int columns = 0;                              // default: of the terminal, 80 if unknown
};

/// A bar on stderr with rate and remaining time:
///   train  43%|████████▌           | 43/100 [00:12<00:16, 3.58 steps/s] loss 0.412
/// Only the innermost living Progress is drawn. The bar is erased when the object dies or finish() is called. Other
/// output to stderr goes through print_line(), which keeps bar and line apart; the cursor rests in column 0, so that
/// foreign output overwrites the bar instead of being appended to it. All functions may be called from any thread.
class Progress {
 public:
  /// total 0: unknown (count and rate only, until set_fraction() is called).
  Progress(std::string label, int64_t total, ProgressOptions options = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t n = 1);
  /// Work done by an earlier run: counted as done, not as speed.
  void resume_at(int64_t done);
  /// Share done in [0, 1] when it is not done/total, as in a run with a time budget.
  void set_fraction(double fraction);
  /// Text after the bar, such as "loss 0.412".
  void set_note(std::string note);
  void finish();

 private:
  friend class ProgressScreen;
  void refresh();
  std::string render(double now_s, int columns) const;
  double fraction() const;

  std::string label_, note_;
  int64_t total_, done_ = 0;
  double fraction_ = -1;
  ProgressOptions options_;
  ProgressMode mode_;
  double start_s_, last_drawn_s_;
  double rate_time_s_;  // when rate_ was last updated
  int64_t rate_done_ = 0;
  double rate_ = 0;  // smoothed, items per second
  bool finished_ = false;
};

/// Writes one line to stderr; a bar that is on screen is moved below it.
void print_line(std::string_view line);

}  // namespace fovea
