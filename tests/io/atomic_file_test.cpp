#include "fovea/io/atomic_file.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fovea/io/input_file.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::slurp;
using testing::spill;
using testing::TestFolder;

mode_t mode_of(const std::filesystem::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 0777 : 0;
}

TEST(AtomicFile, AppearsWithAllItsBytesOnlyAtCommit) {
  const TestFolder folder;
  std::string expected;
  {
    AtomicFile file(folder / "a");
    for (int i = 0; i < 100'000; ++i) {
      const std::string piece = std::to_string(i) + "\n";
      file.write(piece);
      expected += piece;
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    EXPECT_EQ(file.size(), expected.size());
    file.commit();
  }
  EXPECT_EQ(slurp(folder / "a"), expected);
  EXPECT_EQ(folder.entries(), 1u);
}

TEST(AtomicFile, LeavesTheOldFileAndNoTemporaryWithoutCommit) {
  const TestFolder folder;
  spill(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(folder.entries(), 2u);
  }
  EXPECT_EQ(slurp(folder / "a"), "old");
  EXPECT_EQ(folder.entries(), 1u);
}

TEST(AtomicFile, IsPrivateWhenNewAndKeepsTheModeOfWhatItReplaces) {
  const TestFolder folder;
  write_file(folder / "a", "x");
  EXPECT_EQ(mode_of(folder / "a"), 0600u);
  ::chmod((folder / "a").c_str(), 0640);
  write_file(folder / "a", "y");
  EXPECT_EQ(mode_of(folder / "a"), 0640u);
}

TEST(AtomicFile, FollowsASymbolicLink) {
  const TestFolder folder;
  spill(folder / "target", "old");
  std::filesystem::create_symlink(folder / "target", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(slurp(folder / "target"), "new");
}

TEST(AtomicFile, RefusesFoldersDevicesAndMissingFolders) {
  const TestFolder folder;
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file(folder.path()); }), HasSubstr("is not a regular file"));
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file("/dev/null"); }), HasSubstr("is not a regular file"));
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file(folder / "no/a"); }),
              HasSubstr("does not exist; create it first"));
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file(folder / ""); }), HasSubstr("is a folder"));
}

TEST(AtomicFile, TakesNamesUpToTheLimitOfTheFileSystem) {
  const TestFolder folder;
  write_file(folder / std::string(255, 'n'), "x");
  EXPECT_EQ(slurp(folder / std::string(255, 'n')), "x");
}

// A limit on file size stands in for a full disk; the write fails half-way.
TEST(AtomicFile, AFailingWriteIsAResourceErrorAndLeavesTheOldFile) {
  const TestFolder folder;
  spill(folder / "a", "old");
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100'000;
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string line = message_of<ResourceError>([&] {
    AtomicFile file(folder / "a");
    for (int i = 0; i < 100; ++i) file.write(std::string(10'000, 'x'));
    file.commit();
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(line, HasSubstr("a: cannot write after"));
  EXPECT_THAT(line, HasSubstr("nothing was left behind"));
  EXPECT_EQ(slurp(folder / "a"), "old");
  EXPECT_EQ(folder.entries(), 1u);
}

TEST(AtomicFile, ClearsWhatAKilledWriterLeftButNotWhatALivingOneWrites) {
  const TestFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "a");
    file.write("half");
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(folder.entries(), 1u) << "the rest of the killed writer";
  AtomicFile living(folder / "b");
  EXPECT_EQ(remove_stale_temporaries(folder.path()), 1);
  EXPECT_EQ(remove_stale_temporaries(folder.path()), 0);
  living.write("x");
  living.commit();
  EXPECT_EQ(slurp(folder / "b"), "x");
  EXPECT_EQ(folder.entries(), 1u);
}

TEST(AtomicFile, TwoWritersOfOneNameBothFinishAndOneOfThemWins) {
  const TestFolder folder;
  AtomicFile first(folder / "a"), second(folder / "a");
  first.write("1"), second.write("2");
  second.commit(), first.commit();
  EXPECT_EQ(slurp(folder / "a"), "1");
  EXPECT_EQ(folder.entries(), 1u);
}

TEST(InputFile, NamesWhatIsWrongWithAPath) {
  const TestFolder folder;
  EXPECT_THAT(message_of<IoError>([&] { InputFile file(folder / "no"); }), HasSubstr("no such file"));
  EXPECT_THAT(message_of<IoError>([&] { InputFile file(folder.path()); }), HasSubstr("is a folder"));
  EXPECT_THAT(message_of<IoError>([&] { InputFile file("/dev/zero"); }), HasSubstr("is not a regular file"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message_of<IoError>([&] { InputFile file(folder / "pipe"); }), HasSubstr("is not a regular file"));
  spill(folder / "ten", "0123456789");
  std::vector<std::byte> five(5);
  EXPECT_THAT(message_of<IoError>([&] { InputFile(folder / "ten").read_at(7, five); }),
              HasSubstr("ends at byte 10, expected 5 bytes from byte 7 on"));
  EXPECT_THAT(message_of<IoError>([&] { read_text(folder / "ten", 9); }),
              HasSubstr("has 10 bytes, expected at most 9"));
}

}  // namespace
}  // namespace fovea::io
