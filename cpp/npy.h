// Arrays on the disk, as NumPy writes them: .npy files of float32 or float64, in C order.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace npy {

// `what` may quote a damaged file: what is no printable ASCII is shown as "?", the start alone.
inline void wrong(const std::string& path, std::string what) {
  for (auto& letter : what)
    if (letter < ' ' || letter > '~') letter = '?';
  throw std::runtime_error(path + ": " + what.substr(0, 200));
}

inline std::string field(const std::string& header, const std::string& key) {
  const auto at = header.find("'" + key + "':");
  if (at == std::string::npos) return "";
  const auto from = header.find_first_not_of(' ', at + key.size() + 3);
  if (from == std::string::npos) return "";
  const bool tuple = header[from] == '(';
  const auto to = header.find(tuple ? ')' : ',', from);
  return to == std::string::npos ? "" : header.substr(from, to + tuple - from);
}

// Returns an array in float32, in the shape that it has on the disk.
inline at::Tensor load(const std::string& path) {
  std::error_code unknown;
  const auto stored = std::filesystem::file_size(path, unknown);
  if (unknown || !std::filesystem::is_regular_file(path, unknown)) wrong(path, "cannot be read");
  std::ifstream file(path, std::ios::binary);
  if (!file) wrong(path, "cannot be read");
  char magic[8];
  if (!file.read(magic, 8) || std::memcmp(magic, "\x93NUMPY", 6) != 0) wrong(path, "no .npy file");
  const int width = magic[6] == 1 ? 2 : 4;
  unsigned char raw[4] = {0, 0, 0, 0};
  file.read(reinterpret_cast<char*>(raw), width);
  const uint32_t length = raw[0] | raw[1] << 8 | raw[2] << 16 | uint32_t(raw[3]) << 24;
  if (!file || length > (1u << 20)) wrong(path, "damaged header");
  std::string header(length, ' ');
  if (!file.read(header.data(), length)) wrong(path, "damaged header");

  const auto kind = field(header, "descr");
  const bool wide = kind == "'<f8'";
  if (!wide && kind != "'<f4'") wrong(path, "holds " + kind + ", wanted float32 or float64");
  if (field(header, "fortran_order") != "False") wrong(path, "in Fortran order, wanted C order");
  std::vector<int64_t> shape;
  const auto sizes = field(header, "shape");
  if (sizes.size() < 2 || sizes[0] != '(') wrong(path, "damaged header");
  std::stringstream numbers(sizes.substr(1, sizes.size() - 2));
  for (std::string word; std::getline(numbers, word, ',');) {
    if (word.find_first_not_of(' ') == std::string::npos) continue;  // behind a last comma
    std::stringstream one(word);
    int64_t n = -1;
    if (!(one >> n) || !(one >> std::ws).eof() || n < 0) wrong(path, "damaged shape " + sizes);
    shape.push_back(n);
  }
  // nothing is allocated that the file does not hold
  const auto left = stored - static_cast<uint64_t>(file.tellg());
  uint64_t bytes = wide ? 8 : 4;
  for (const auto n : shape) {
    if (n > 0 && bytes > left / uint64_t(n)) wrong(path, "ends too early");
    bytes *= uint64_t(n);
  }
  if (bytes != left) wrong(path, "is longer than its header says");
  auto array = at::empty(shape, at::dtype(wide ? at::kDouble : at::kFloat));
  if (!file.read(static_cast<char*>(array.data_ptr()), static_cast<std::streamsize>(bytes)))
    wrong(path, "ends too early");
  array = array.to(at::kFloat);
  if (array.numel() == 0) wrong(path, "is empty");
  if (!at::isfinite(array).all().item<bool>()) wrong(path, "holds NaN or infinite values");
  return array;
}

// Whole or not at all: written beside, then renamed.
inline void save(const std::string& path, const at::Tensor& x) {
  const auto array = x.to(at::kFloat).contiguous();
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const auto n : array.sizes()) header += std::to_string(n) + ", ";
  header += "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  const unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0,
                                  static_cast<unsigned char>(length & 0xff),
                                  static_cast<unsigned char>(length >> 8)};
  const auto partial = path + ".partial";
  std::ofstream file(partial, std::ios::binary);
  file.write(reinterpret_cast<const char*>(head), 10);
  file << header;
  file.write(static_cast<const char*>(array.data_ptr()),
             static_cast<std::streamsize>(array.nbytes()));
  file.close();
  if (!file || std::rename(partial.c_str(), path.c_str()) != 0) {
    std::remove(partial.c_str());
    wrong(path, "cannot be written");
  }
}

}  // namespace npy
