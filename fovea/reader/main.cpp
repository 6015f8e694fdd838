// What decodes files that are read by foreign libraries, in a process of its own: if a damaged file brings the decoder
// down, or makes it ask for everything, this process ends and the caller says so in one line (fovea/io/reader_process.h).
//
//     fovea_reader dicom PATH MAX_BYTES SERIES|-1 rescaled|suv header|voxels
//     fovea_reader slide PATH
//     fovea_reader features PATH MAX_BYTES
//     fovea_reader encode-features PATH             (PATH for messages; header and values come on stdin)
//
// stdout: one line of JSON (ImageInfo, SlideInfo), then the voxels in C order, or the regions of a slide that are asked
// for on stdin, or the values of a feature file. stderr: one line that says what is wrong.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "fovea/core/error.h"
#include "fovea/io/json_file.h"
#include "fovea/reader/dicom_series.h"
#include "fovea/reader/feature_hdf5.h"
#include "fovea/reader/whole_slide.h"

namespace {
void limit(int resource, rlim_t to) {
  const rlimit both{to, to};
  setrlimit(resource, &both);
}

void write_all(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes) throw fovea::ResourceError("fovea_reader: who asked does not listen");
}

int read_dicom(char** arguments) {
  fovea::reader::DicomOptions options;
  options.max_bytes = std::stoull(arguments[1]), options.series = std::stoll(arguments[2]), options.suv = std::string(arguments[3]) == "suv";
  limit(RLIMIT_AS, rlim_t(options.max_bytes) + (rlim_t{2} << 30));
  fovea::reader::DicomSeries series(arguments[0], options);
  const auto& g = series.geometry();
  fovea::io::Json head = {{"shape", g.shape}, {"affine", g.affine}, {"dtype", fovea::name_of(series.dtype())}, {"modality", series.modality()},
                          {"units", series.units()}, {"notes", series.notes()}, {"file_bytes", series.file_bytes()}};
  if (series.suv_per_unit()) head["suv_per_unit"] = *series.suv_per_unit();
  const std::string line = head.dump(-1, ' ', /*ensure_ascii=*/true, fovea::io::Json::error_handler_t::replace) + "\n";
  write_all(line.data(), line.size());
  for (int64_t z = 0; std::string(arguments[4]) == "voxels" && z < g.shape[0]; ++z) {
    const auto plane = series.plane(z);
    write_all(plane.data(), plane.size());
  }
  return std::fflush(stdout) == 0 ? 0 : 3;
}

// What foreign libraries say on stderr would hide the one line that the caller reads there.
class QuietLibraries {
 public:
  QuietLibraries() : stderr_(dup(2)) {
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 2), close(nowhere);
  }
  ~QuietLibraries() { dup2(stderr_, 2), close(stderr_); }
  QuietLibraries(const QuietLibraries&) = delete;
  QuietLibraries& operator=(const QuietLibraries&) = delete;

 private:
  int stderr_;
};

// A slide is open for as long as somebody looks at it: it is each region that may take a minute.
void limit_cpu_from_now(rlim_t seconds) {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const rlimit soft{rlim_t(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + seconds, RLIM_INFINITY};
  setrlimit(RLIMIT_CPU, &soft);
}

int read_slide(char** arguments) {
  limit(RLIMIT_AS, rlim_t{4} << 30);
  limit_cpu_from_now(60);
  const QuietLibraries quiet;
  fovea::reader::WholeSlide slide(arguments[0]);
  fovea::io::Json head = {{"vendor", slide.vendor()}, {"levels", fovea::io::Json::array()}, {"notes", slide.notes()}};
  for (const auto& level : slide.levels()) head["levels"].push_back({level.height, level.width, level.downsample});
  if (slide.um_per_pixel()) head["um_per_pixel"] = *slide.um_per_pixel();
  if (slide.objective_power()) head["objective_power"] = *slide.objective_power();
  head["file_bytes"] = std::filesystem::file_size(arguments[0]);
  const std::string line = head.dump(-1, ' ', /*ensure_ascii=*/true, fovea::io::Json::error_handler_t::replace) + "\n";
  write_all(line.data(), line.size());
  std::fflush(stdout);
  int32_t level = 0;
  for (int64_t y = 0, x = 0, height = 0, width = 0; std::cin >> level >> y >> x >> height >> width;) {
    limit_cpu_from_now(60);
    const auto rgb = slide.read(level, y, x, height, width);
    write_all(rgb.data(), rgb.size());
    std::fflush(stdout);
  }
  return 0;
}

int read_features(char** arguments) {
  const uint64_t max_bytes = std::stoull(arguments[1]);
  limit(RLIMIT_AS, rlim_t(max_bytes) + (rlim_t{2} << 30));
  const QuietLibraries quiet;
  const auto table = fovea::reader::read_feature_hdf5(arguments[0], max_bytes);
  const fovea::io::Json head = {{"rows", table.rows}, {"columns", table.columns}, {"coord_rows", table.coord_rows}, {"encoder", table.encoder}, {"numbers", table.numbers}};
  const std::string line = head.dump(-1, ' ', /*ensure_ascii=*/true, fovea::io::Json::error_handler_t::replace) + "\n";
  write_all(line.data(), line.size());
  write_all(table.features.data(), table.features.size() * sizeof(float));
  write_all(table.coords.data(), table.coords.size() * sizeof(int64_t));
  return std::fflush(stdout) == 0 ? 0 : 3;
}

int encode_features() {
  std::string line;
  std::getline(std::cin, line);
  const auto head = fovea::io::Json::parse(line);
  fovea::reader::FeatureTable table;
  table.rows = head.at("rows"), table.columns = head.at("columns"), table.coord_rows = head.at("coord_rows"), table.encoder = head.at("encoder");
  for (const auto& [name, value] : head.at("numbers").items()) table.numbers[name] = value.get<double>();
  const auto take = [](auto& values, int64_t count) {
    values.resize(size_t(count));
    const auto bytes = std::streamsize(values.size() * sizeof(values[0]));
    if (!std::cin.read(reinterpret_cast<char*>(values.data()), bytes)) throw fovea::ResourceError("fovea_reader: who asked has ended");
  };
  take(table.features, table.rows * table.columns);
  take(table.coords, 2 * std::max<int64_t>(table.coord_rows, 0));
  const auto bytes = fovea::reader::encode_feature_hdf5(table);
  const std::string answer = "{\"bytes\":" + std::to_string(bytes.size()) + "}\n";
  write_all(answer.data(), answer.size());
  write_all(bytes.data(), bytes.size());
  return std::fflush(stdout) == 0 ? 0 : 3;
}
}  // namespace

int main(int argc, char** argv) {
  limit(RLIMIT_CORE, 0);
  if (argc < 2 || std::string(argv[1]) != "slide") limit(RLIMIT_CPU, 600);
  try {
    if (argc == 7 && std::string(argv[1]) == "dicom") return read_dicom(argv + 2);
    if (argc == 3 && std::string(argv[1]) == "slide") return read_slide(argv + 2);
    if (argc == 4 && std::string(argv[1]) == "features") return read_features(argv + 2);
    if (argc == 3 && std::string(argv[1]) == "encode-features") return encode_features();
    std::fprintf(stderr, "fovea_reader: is started by Fovea; fovea_reader dicom PATH MAX_BYTES SERIES rescaled|suv header|voxels, slide PATH, features PATH MAX_BYTES\n");
    return 2;
  } catch (const fovea::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return int(error.code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: decoding asks for more memory than the limit\n", argv[2]);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argc > 2 ? argv[2] : argv[0], error.what());
    return 2;
  }
}
