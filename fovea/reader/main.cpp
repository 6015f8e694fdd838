// What decodes files that are read by foreign libraries, in a process of its own: if a damaged file brings the decoder
// down, or makes it ask for everything, this process ends and the caller says so in one line (fovea/io/reader_process.h).
//
//     fovea_reader dicom PATH MAX_BYTES SERIES|-1 rescaled|suv header|voxels
//
// stdout: one line of JSON (ImageInfo), then the voxels in C order. stderr: one line that says what is wrong.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "fovea/core/error.h"
#include "fovea/io/json_file.h"
#include "fovea/reader/dicom_series.h"

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
}  // namespace

int main(int argc, char** argv) {
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, 600);
  try {
    if (argc == 7 && std::string(argv[1]) == "dicom") return read_dicom(argv + 2);
    std::fprintf(stderr, "fovea_reader: is started by Fovea; fovea_reader dicom PATH MAX_BYTES SERIES rescaled|suv header|voxels\n");
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
