#include "fovea/core/process_memory.h"

#include <gtest/gtest.h>

#include <vector>

namespace fovea {
namespace {

TEST(ProcessMemory, SeesABlockThatIsTouchedAndItsPeakAfterItIsGone) {
#ifdef FOVEA_SANITIZED
  GTEST_SKIP() << "AddressSanitizer keeps freed memory";
#endif
  if (resident_bytes() == 0) GTEST_SKIP() << "no /proc/self/status on this system";
  constexpr int64_t kBlock = 64 << 20;
  release_free_memory();
  const bool reset = reset_peak_resident();
  const int64_t before = resident_bytes();
  {
    std::vector<char> block(kBlock, 1);
    EXPECT_GE(resident_bytes() - before, kBlock * 9 / 10);
  }
  EXPECT_GE(peak_resident_bytes() - before, kBlock * 9 / 10);
  release_free_memory();
  EXPECT_LT(resident_bytes() - before, kBlock / 2);
  if (reset && reset_peak_resident()) {
    EXPECT_LT(peak_resident_bytes() - before, kBlock / 2);
  }
}

TEST(MachineMemory, IsMoreThanThisProcessHolds) {
  const MachineMemory memory = machine_memory();
  if (memory.total_bytes == 0) GTEST_SKIP() << "this system does not say how much memory it has";
  EXPECT_GT(memory.total_bytes, double(resident_bytes()));
  EXPECT_LE(memory.free_bytes, memory.total_bytes);
}

TEST(FormatBytes, ChoosesTheUnit) {
  EXPECT_EQ(format_bytes(3 << 10), "3 KiB");
  EXPECT_EQ(format_bytes(300 << 20), "300 MiB");
  EXPECT_EQ(format_bytes(int64_t{5} << 29), "2.5 GiB");
  EXPECT_EQ(format_bytes(double(int64_t{3} << 39)), "1.5 TiB");
  EXPECT_EQ(format_bytes(double(int64_t{16} << 40)), "16 TiB");
}

}  // namespace
}  // namespace fovea
