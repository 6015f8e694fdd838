#pragma once
#include <string>

class DcmItem;
class DcmTagKey;

namespace fovea::reader {

/// SUV by body weight of one unit of a PET series: weight / (injected activity, decayed to the time that the scan's
/// activities are corrected to), for g/ml.
///
/// dataset       of any image of the series
/// first_second  the earliest AcquisitionTime of the series, seconds after midnight
/// problem       why there is no factor, when 0 is returned
/// Source   Quantitative Imaging Biomarkers Alliance, FDG-PET/CT profile, SUV from DICOM attributes; DICOM PS3.3 C.8.9.
double suv_body_weight(DcmItem& dataset, double first_second, std::string& problem);

/// A text attribute's first value; empty when it is not there.
std::string text_of(DcmItem& item, const DcmTagKey& tag);

/// A DICOM TM value (hhmmss.frac) as seconds after midnight; negative when it is none.
double seconds_of(const std::string& time);

}  // namespace fovea::reader
