// SHA-256 (FIPS 180-4, section 6.2), and the check of a package by it.
//
// `measurand export` ends every package with a comment of the archive, "measurand-sha256 " and 64
// hexadecimal digits: the digest of all bytes before it. It is compared before anything in the
// file is looked at, so that no reader of archives and no loader of code meets a damaged one.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace sha256 {

constexpr char kMark[] = "measurand-sha256 ";
constexpr std::streamoff kTrailer = sizeof(kMark) - 1 + 64;

class Digest {
 public:
  void update(const unsigned char* data, size_t size) {
    length_ += size;
    while (size > 0) {
      const size_t part = std::min(size, block_.size() - filled_);
      std::memcpy(block_.data() + filled_, data, part);
      filled_ += part, data += part, size -= part;
      if (filled_ == block_.size()) compress();
    }
  }

  // The digest in hexadecimal; nothing can be added afterwards.
  std::string hexadecimal() {
    const uint64_t bits = 8 * length_;
    const unsigned char one = 0x80, zero = 0;
    update(&one, 1);
    while (filled_ != 56) update(&zero, 1);
    for (int shift = 56; shift >= 0; shift -= 8) {
      const auto byte = static_cast<unsigned char>(bits >> shift);
      update(&byte, 1);
    }
    std::string text;
    for (const uint32_t word : state_)
      for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    return text;
  }

 private:
  // First 32 bits of the fractional parts of the cube roots of the first 64 primes (section 4.2.2),
  // and of the square roots of the first eight (section 5.3.3).
  static constexpr std::array<uint32_t, 64> kRound{
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_{};
  size_t filled_ = 0;
  uint64_t length_ = 0;

  void compress() {
    std::array<uint32_t, 64> w{};
    for (size_t t = 0; t < 16; ++t)
      w[t] = uint32_t(block_[4 * t]) << 24 | uint32_t(block_[4 * t + 1]) << 16 |
             uint32_t(block_[4 * t + 2]) << 8 | uint32_t(block_[4 * t + 3]);
    for (size_t t = 16; t < 64; ++t) {
      const auto s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
      const auto s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
      w[t] = s1 + w[t - 7] + s0 + w[t - 16];
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (size_t t = 0; t < 64; ++t) {
      const auto sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const auto sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const auto t1 = h + sum1 + ((e & f) ^ (~e & g)) + kRound[t] + w[t];
      const auto t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<uint32_t, 8> added{a, b, c, d, e, f, g, h};
    for (size_t k = 0; k < 8; ++k) state_[k] += added[k];
    filled_ = 0;
  }
};

// Throws unless a package is what `measurand export` wrote, to the last bit.
inline void check(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored))  // a pipe would never end
    throw std::runtime_error(path + ": cannot be read, no such file");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff end = file.tellg();
  std::string trailer(kTrailer, ' ');
  if (!file || end < kTrailer || !file.seekg(end - kTrailer) || !file.read(trailer.data(), kTrailer) ||
      trailer.rfind(kMark, 0) != 0)
    throw std::runtime_error(path + ": no compiled package, or one without its digest (cut off, or "
                             "made by an earlier version): export it again");
  file.seekg(0);
  Digest digest;
  std::vector<unsigned char> part(size_t(1) << 20);
  for (std::streamoff left = end - kTrailer; left > 0;) {
    const auto size = std::min<std::streamoff>(left, std::streamoff(part.size()));
    if (!file.read(reinterpret_cast<char*>(part.data()), size))
      throw std::runtime_error(path + ": cannot be read to its end");
    digest.update(part.data(), size_t(size));
    left -= size;
  }
  if (digest.hexadecimal() != trailer.substr(sizeof(kMark) - 1))
    throw std::runtime_error(path + ": damaged, it differs from its digest: copy or export it again");
}

}  // namespace sha256
