#include "fovea/kernels/conv3d.h"

namespace fovea::kernels {

std::string name_of(Conv3dForm form) {
  switch (form) {
    case Conv3dForm::kF222:
      return "F(2,2,2)";
    case Conv3dForm::kF244:
      return "F(2,4,4)";
    case Conv3dForm::kF444:
      return "F(4,4,4)";
    default:
      return "direct";
  }
}

Conv3dForm choose_conv3d_form(const Conv3dSize& size, Conv3dPrecision precision, Conv3dWeightUse) {
  if (size.in < 8 || size.out < 8) return Conv3dForm::kDirect;
  return precision == Conv3dPrecision::kHighest ? Conv3dForm::kF222 : Conv3dForm::kF444;
}

}  // namespace fovea::kernels
