#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace fovea::recipes {

struct LessonSiteOptions {
  uint64_t seed = 0;
  bool train = false;  // the lessons that train, too; without, their pages say how to run them
};

/// Writes the lessons as a site that opens offline: index.html and a page a lesson, in English and Chinese, with
/// equation, picture and an answer box that is checked in the page against the value computed now. Returns the number
/// of lessons. Errors   IoError for the folder.
size_t write_lesson_site(const std::filesystem::path& folder, const LessonSiteOptions& options);

}  // namespace fovea::recipes
