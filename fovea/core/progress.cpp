#include "fovea/core/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

namespace fovea {

/// The one screen that all bars share: which are alive, and whether the innermost is drawn at the moment.
class ProgressScreen {
 public:
  static ProgressScreen& get() {
    static ProgressScreen screen;
    return screen;
  }
  void draw(Progress& bar, double now_s) {
    const int columns = bar.options_.columns > 0 ? bar.options_.columns : terminal_columns();
    // Erase to the end of line after the text, then back to column 0: foreign output lands on the bar, not behind it.
    bar.options_.write("\r" + bar.render(now_s, columns) + "\x1b[K\r");
    drawn_ = true;
  }
  void erase(const Progress& bar) {
    if (std::exchange(drawn_, false)) bar.options_.write("\r\x1b[K");
  }
  void print_line(std::string_view line) {
    const std::scoped_lock lock(mutex);
    std::string text(line);
    text += '\n';
    if (alive.empty()) return write_to_stderr(text);
    Progress& bar = *alive.back();
    erase(bar);
    bar.options_.write(text);
    if (bar.mode_ == ProgressMode::kBar) draw(bar, bar.options_.clock_s());
  }
  static void write_to_stderr(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  }

  std::mutex mutex;
  std::vector<Progress*> alive;  // outermost first
  ProgressMode default_mode = ProgressMode::kAuto;

 private:
  static int terminal_columns() {
    winsize size{};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  }
  bool drawn_ = false;
};

namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value && *value) {
      const std::string_view text(value);
      return text.find("UTF-8") != text.npos || text.find("utf8") != text.npos;
    }
  }
  return false;
}

std::string clock_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 3.6e8) return "?";
  const auto s = static_cast<long long>(std::llround(seconds));
  char text[32];
  if (s >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  } else {
    std::snprintf(text, sizeof text, "%02lld:%02lld", s / 60, s % 60);
  }
  return text;
}

std::string rate_text(double rate, const std::string& unit) {
  char text[32];
  if (!(rate > 0)) return "? " + unit + "/s";
  const bool slow = rate < 1;
  std::snprintf(text, sizeof text, "%.3g ", slow ? 1 / rate : rate);
  return text + (slow ? "s/" + unit : unit + "/s");
}

std::string bar_text(double fraction, int cells) {
  static const bool utf8 = locale_is_utf8();
  if (!utf8) {
    const int full = static_cast<int>(fraction * cells);
    return std::string(size_t(full), '#') + std::string(size_t(cells - full), ' ');
  }
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(fraction * cells * 8), full = eighths / 8;
  std::string text;
  for (int i = 0; i < full; ++i) text += "█";
  text += kEighths[eighths % 8];
  return text + std::string(size_t(std::max(0, cells - full - (eighths % 8 != 0))), ' ');
}

}  // namespace

void set_default_progress_mode(ProgressMode mode) {
  const std::scoped_lock lock(ProgressScreen::get().mutex);
  ProgressScreen::get().default_mode = mode;
}

void print_line(std::string_view line) { ProgressScreen::get().print_line(line); }

Progress::Progress(std::string label, int64_t total, ProgressOptions options)
    : label_(std::move(label)), total_(total), options_(std::move(options)), mode_(options_.mode) {
  ProgressScreen& screen = ProgressScreen::get();
  const std::scoped_lock lock(screen.mutex);
  if (!options_.clock_s) options_.clock_s = steady_seconds;
  if (!options_.write) options_.write = ProgressScreen::write_to_stderr;
  if (mode_ == ProgressMode::kAuto) mode_ = screen.default_mode;
  if (mode_ == ProgressMode::kAuto) mode_ = isatty(STDERR_FILENO) ? ProgressMode::kBar : ProgressMode::kOff;
  start_s_ = last_drawn_s_ = rate_time_s_ = options_.clock_s();
  if (mode_ == ProgressMode::kBar) last_drawn_s_ -= options_.redraw_every_s;  // a short job's bar is seen too
  if (!screen.alive.empty()) screen.erase(*screen.alive.back());
  screen.alive.push_back(this);
}

Progress::~Progress() { finish(); }

void Progress::advance(int64_t n) {
  const std::scoped_lock lock(ProgressScreen::get().mutex);
  done_ += n;
  refresh();
}

void Progress::resume_at(int64_t done) {
  const std::scoped_lock lock(ProgressScreen::get().mutex);
  done_ = rate_done_ = done;
}

void Progress::set_fraction(double fraction) {
  const std::scoped_lock lock(ProgressScreen::get().mutex);
  fraction_ = std::clamp(fraction, 0.0, 1.0);
}

void Progress::set_note(std::string note) {
  const std::scoped_lock lock(ProgressScreen::get().mutex);
  note_ = std::move(note);
}

void Progress::finish() {
  ProgressScreen& screen = ProgressScreen::get();
  const std::scoped_lock lock(screen.mutex);
  if (finished_) return;
  finished_ = true;
  if (screen.alive.back() == this) screen.erase(*this);
  std::erase(screen.alive, this);
}

double Progress::fraction() const {
  if (fraction_ >= 0) return fraction_;
  return total_ > 0 ? std::clamp(double(done_) / double(total_), 0.0, 1.0) : -1;
}

void Progress::refresh() {
  ProgressScreen& screen = ProgressScreen::get();
  if (mode_ == ProgressMode::kOff || screen.alive.empty() || screen.alive.back() != this) return;
  const double now_s = options_.clock_s();
  const double every_s = mode_ == ProgressMode::kBar ? options_.redraw_every_s : options_.line_every_s;
  if (now_s - last_drawn_s_ < every_s) return;
  if (now_s > rate_time_s_) {
    const double rate = double(done_ - rate_done_) / (now_s - rate_time_s_);
    rate_ = rate_ == 0 ? rate : 0.7 * rate_ + 0.3 * rate;  // smoothed, so that the remaining time does not jump
    rate_time_s_ = now_s, rate_done_ = done_;
  }
  last_drawn_s_ = now_s;
  if (mode_ == ProgressMode::kBar) return screen.draw(*this, now_s);
  options_.write(render(now_s, 0) + "\n");
}

std::string Progress::render(double now_s, int columns) const {
  const double part = fraction(), elapsed_s = now_s - start_s_;
  double left_s = NAN;
  if (fraction_ > 0) {
    left_s = elapsed_s * (1 - fraction_) / fraction_;
  } else if (total_ > 0 && rate_ > 0) {
    left_s = double(std::max<int64_t>(0, total_ - done_)) / rate_;
  }
  std::string head = label_ + " ", tail = std::to_string(done_);
  if (total_ > 0) tail += "/" + std::to_string(total_);
  tail += " [" + clock_text(elapsed_s) + (part >= 0 ? "<" + clock_text(left_s) : "") + ", " +
          rate_text(rate_, options_.unit) + "]";
  if (!note_.empty()) tail += " " + note_;
  if (part >= 0) {
    char percent[16];
    std::snprintf(percent, sizeof percent, "%3d%%", int(part * 100));
    head += percent;
  }
  if (columns <= 0) return head + (part >= 0 ? " " : "") + tail;
  const int room = columns - 1 - int(head.size() + tail.size()) - 3;  // '|', '|', ' '
  std::string line;
  if (part >= 0 && room >= 5) {
    line = head + "|" + bar_text(part, std::min(room, 40)) + "| " + tail;
  } else {
    line = head + (part >= 0 ? " " : "") + tail;
    if (int(line.size()) > columns - 1) line.resize(size_t(std::max(0, columns - 1)));
  }
  return line;
}

}  // namespace fovea
