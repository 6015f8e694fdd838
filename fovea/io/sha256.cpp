#include "fovea/io/sha256.h"

#include <openssl/evp.h>

#include <vector>

#include "fovea/core/error.h"
#include "fovea/io/input_file.h"

namespace fovea::io {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  FOVEA_CHECK(state_->context && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
              "OpenSSL offers no SHA-256");
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  FOVEA_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1, "SHA-256 update failed");
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  FOVEA_CHECK(EVP_DigestFinal_ex(state_->context, digest, &length) == 1, "SHA-256 final failed");
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += digits[digest[i] >> 4], text += digits[digest[i] & 15];
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::vector<std::byte> piece(size_t{1} << 20);
  Sha256 hash;
  for (uint64_t at = 0;;) {
    const size_t n = file.read_some_at(at, piece);
    if (n == 0) break;
    hash.update(std::span(piece).first(n));
    at += n;
  }
  return hash.hex();
}

}  // namespace fovea::io
