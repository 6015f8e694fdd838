#include "fovea/reader/suv.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include <charconv>
#include <cmath>

namespace fovea::reader {

namespace {
constexpr double kDay = 86400;

double number_of(DcmItem& item, const DcmTagKey& tag) {
  Float64 value = 0;
  return item.findAndGetFloat64(tag, value).good() && std::isfinite(value) ? value : 0;
}
}  // namespace

std::string text_of(DcmItem& item, const DcmTagKey& tag) {
  OFString text;
  item.findAndGetOFString(tag, text);
  return text.c_str();
}

double seconds_of(const std::string& time) {
  const auto two = [&](size_t at) {
    int value = -1;
    if (time.size() >= at + 2) std::from_chars(time.data() + at, time.data() + at + 2, value);
    return value;
  };
  const int h = two(0), m = time.size() > 2 ? two(2) : 0, s = time.size() > 4 ? two(4) : 0;
  if (h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 60) return -1;
  double fraction = 0;
  if (time.size() > 7 && time[6] == '.') {
    int digits = 0;
    const char* begin = time.data() + 7;
    const char* end = std::from_chars(begin, time.data() + std::min<size_t>(time.size(), 13), digits).ptr;
    fraction = digits / std::pow(10.0, double(end - begin));
  }
  return h * 3600 + m * 60 + s + fraction;
}

double suv_body_weight(DcmItem& dataset, double first_second, std::string& problem) {
  const std::string units = text_of(dataset, DCM_Units);
  if (units == "GML") {
    const std::string type = text_of(dataset, DCM_SUVType);
    if (type.empty() || type == "BW") return 1;
    problem = "its values are SUV of type " + type + ", expected BW";
    return 0;
  }
  if (units != "BQML") {
    problem = "its Units are \"" + units + "\", expected BQML";
    return 0;
  }
  const double weight_kg = number_of(dataset, DCM_PatientWeight);
  if (weight_kg <= 0) return problem = "PatientWeight is missing", 0;
  DcmItem* tracer = nullptr;
  dataset.findAndGetSequenceItem(DCM_RadiopharmaceuticalInformationSequence, tracer);
  if (!tracer) return problem = "RadiopharmaceuticalInformationSequence is missing", 0;
  const double dose_bq = number_of(*tracer, DCM_RadionuclideTotalDose), half_life_s = number_of(*tracer, DCM_RadionuclideHalfLife);
  if (half_life_s <= 0) return problem = "RadionuclideHalfLife is missing", 0;
  if (dose_bq < 1e5) return problem = "RadionuclideTotalDose is missing or not in becquerel", 0;

  const std::string correction = text_of(dataset, DCM_DecayCorrection);
  double elapsed_s = 0;  // from the injection to the time that activities are corrected to
  if (correction == "START") {
    const double series = seconds_of(text_of(dataset, DCM_SeriesTime));
    std::string injected = text_of(*tracer, DCM_RadiopharmaceuticalStartTime);
    if (const std::string moment = text_of(*tracer, DCM_RadiopharmaceuticalStartDateTime); injected.empty() && moment.size() > 8)
      injected = moment.substr(8);
    const double injection = seconds_of(injected);
    // A series saved again later carries a later SeriesTime; the acquisition cannot move.
    const double scan = series >= 0 && (first_second < 0 || series <= first_second) ? series : first_second;
    if (injection < 0 || scan < 0) return problem = "the time of injection or of the scan is missing", 0;
    elapsed_s = scan - injection + (scan < injection ? kDay : 0);
    if (elapsed_s > 10 * half_life_s) return problem = "the scan would be more than ten half-lives after the injection", 0;
  } else if (correction != "ADMIN") {
    return problem = "DecayCorrection is \"" + correction + "\", expected START or ADMIN", 0;
  }
  return weight_kg * 1000 / (dose_bq * std::exp2(-elapsed_s / half_life_s));
}

}  // namespace fovea::reader
