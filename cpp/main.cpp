// Reconstructs an image from a measurement by an exported unfolded network, without Python.
//
// The package holds the learned part D(v, r) alone (see measurand/export.py). Everything below is
// the rest of `UnfoldedDR`: measurand/unfolded/posterior_score.py explains the formulas.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "npy.h"
#include "physics.h"
#include "sha256.h"

using Options = std::map<std::string, std::string>;

const char* const kUsage =
    R"(usage: measurand-run PACKAGE.pt2 --y Y.npy --sigma SIGMA --noise N.npy --out X.npy
                     (--kernel K.npy | --mask M.npy | --factor S) [OPTIONS]

Reconstructs images from what was measured, by a network that `measurand export` has compiled.
Arrays are .npy files of float32 or float64 in C order; B images of C channels.

  --y Y.npy        what was measured, (B, C, H, W)
  --sigma SIGMA    its noise, a standard deviation
  --noise N.npy    standard normal numbers, in the shape of the images
  --out X.npy      where the images go

what was measured, one of
  --kernel K.npy   a periodic blur by a kernel (h, w)
  --mask M.npy     pixels that were seen, (H, W) or (C, H, W)
  --factor S       averages over blocks of S x S pixels

options
  --draw N2.npy    more normal numbers: a draw of the posterior by the probability flow, as
                   `DiffUnfolding` does; the posterior mean where absent
  --steps 20       noise levels of a draw
  --threads 1      threads, at most 1024
  --repeat 0       do the same again as often, and print the seconds of one
  --help           this text
)";

at::Tensor per_item(const at::Tensor& value) { return value.reshape({-1, 1, 1, 1}); }

// What an exported file says of itself, and its learned blocks.
struct Network {
  std::vector<std::unique_ptr<torch::inductor::AOTIModelPackageLoader>> blocks;
  std::unordered_map<std::string, std::string> about;
  at::Tensor alpha, beta, size, w1, b1, w2, b2;
  int64_t depth;
  double sigma_data, most;

  explicit Network(const std::string& path) {
    using Loader = torch::inductor::AOTIModelPackageLoader;
    sha256::check(path);
    try {
      blocks.push_back(std::make_unique<Loader>(path, "block0"));
    } catch (const std::exception&) {  // its own words are a listing, or do not name the file
      throw std::runtime_error(path + ": no compiled package that this program can load; `measurand "
                               "export` makes one for this machine, also of a portable file");
    }
    about = blocks[0]->get_metadata();
    depth = std::stoll(text("depth"));
    if (depth < 1) throw std::runtime_error(path + ": holds a prior, wanted an unfolded network");
    if (text("device") != "cpu") throw std::runtime_error(path + ": compiled for " + text("device"));
    if (text("complex") != "0") throw std::runtime_error(path + ": its images are complex");
    for (int64_t k = 1; k < std::stoll(text("blocks")); ++k)
      blocks.push_back(std::make_unique<Loader>(path, "block" + std::to_string(k)));
    if (text("radii") != "shrinking") throw std::runtime_error(path + ": of another kind of network");
    alpha = numbers("alpha"), beta = numbers("beta"), size = numbers("size");
    sigma_data = std::stod(text("sigma_data"));
    most = numbers("sigma_range")[1].item<double>();
    w1 = numbers("radius.first.weight").reshape({-1, 3}), b1 = numbers("radius.first.bias");
    w2 = numbers("radius.second.weight").reshape({2, -1}), b2 = numbers("radius.second.bias");
  }

  const std::string& text(const std::string& key) const {
    const auto found = about.find(key);
    if (found == about.end()) throw std::runtime_error("the package does not say '" + key + "'");
    return found->second;
  }

  at::Tensor numbers(const std::string& key) const {
    std::stringstream stream(text(key));
    std::vector<double> values;
    for (double x; stream >> x;) values.push_back(x);
    return at::tensor(values, at::kDouble);
  }

  at::Tensor block(int64_t k, const at::Tensor& v, const at::Tensor& r) const {
    return blocks[k % blocks.size()]->run({v.contiguous(), r.to(at::kFloat)})[0];
  }

  // E[x given x_t, y]: Douglas-Rachford steps of which D is the only learned part.
  at::Tensor estimate(const at::Tensor& x_t, double s_t, const Physics& a, double s_y) const {
    const auto n = x_t.size(0);
    s_y = std::max(s_y, 1e-3 * a.norm);
    const auto prox_g = [&](const at::Tensor& u, double r) {
      const double own = 1 / (s_t * s_t), near = 1 / (r * r), w = own + near;
      const auto gamma = at::full({n, 1, 1, 1}, s_y * s_y * w, x_t.options());
      return a.prox((own * x_t + near * u) / w, gamma);
    };
    const auto facts = at::tensor({std::log(s_t), std::log(s_y / a.norm),
                                   std::log(std::max(a.trace / (a.norm * a.norm), 1e-9))},
                                  at::kDouble);
    const auto hidden = at::silu(at::mv(w1, facts / 4) + b1);
    const auto h = 1.5 * at::tanh(at::mv(w2, hidden) + b2);
    const double first = h[0].item<double>() + std::log(2 * sigma_data);
    const double last = std::min(first, h[1].item<double>() + std::log(4 * s_y / a.norm));
    const auto radius = [&](int64_t k) {
      const double place = depth > 1 ? double(k) / (depth - 1) : 1.0;
      return 1 / std::sqrt(1 / (s_t * s_t) + std::exp(-2 * (first + place * (last - first))));
    };
    auto u = prox_g(a.guess(), sigma_data), z = u;
    for (int64_t k = 0; k < depth; ++k) {
      const double r = radius(k), next = k + 1 < depth ? radius(k + 1) : r;
      const auto x = prox_g(u, r);
      z = block(k, x + beta[k].item<double>() * (x - u), at::full({n}, r, x_t.options()));
      u = z + (u + alpha[k].item<double>() * (z - x) - z) * (next * next / (r * r));
    }
    return z;
  }
};

// n levels, evenly spaced in s^(1/7).
std::vector<double> levels(double high, double low, int n) {
  std::vector<double> found;
  const double a = std::pow(high, 1 / 7.0), b = std::pow(low, 1 / 7.0);
  for (int i = 0; i < n; ++i)
    found.push_back(std::pow(a + (n > 1 ? double(i) / (n - 1) : 0.0) * (b - a), 7));
  return found;
}

// The probability flow of the posterior from a warm start, by Heun's scheme.
template <class Denoise>
at::Tensor draw(const Denoise& denoise, at::Tensor x, const std::vector<double>& s) {
  for (size_t i = 0; i + 1 < s.size(); ++i) {
    const double t = s[i], next = s[i + 1];
    const auto slope = (x - denoise(x, t)) / t;
    const auto ahead = x + (next - t) * slope;
    x = x + (next - t) / 2 * (slope + (ahead - denoise(ahead, next)) / next);
  }
  return denoise(x, s.back());
}

double number(const Options& given, const std::string& key, double least, double most = 1e9) {
  const auto& word = given.at(key);
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(word, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != word.size() || !(value >= least && value <= most)) {
    std::stringstream words;
    words << "--" << key << " " << word << ": wanted a number from " << least << " to " << most;
    throw std::runtime_error(words.str());
  }
  return value;
}

int64_t whole(const Options& given, const std::string& key, double least = 1, double most = 1e9) {
  const double value = number(given, key, least, most);
  if (value != std::floor(value)) throw std::runtime_error("--" + key + ": wanted a whole number");
  return static_cast<int64_t>(value);
}

std::unique_ptr<Physics> physics(const Options& given, const at::Tensor& y) {
  if (given.count("kernel") + given.count("mask") + given.count("factor") != 1)
    throw std::runtime_error("say what was measured, by one of --kernel, --mask and --factor");
  if (given.count("kernel")) return std::make_unique<Blur>(y, npy::load(given.at("kernel")));
  if (given.count("mask")) return std::make_unique<Mask>(y, npy::load(given.at("mask")));
  return std::make_unique<BlockAverage>(y, whole(given, "factor"));
}

Options options(int argc, char** argv) {
  const std::string known = " y sigma noise out kernel mask factor draw steps threads repeat ";
  Options given{{"steps", "20"}, {"threads", "1"}, {"repeat", "0"}};
  for (int i = 2; i < argc; i += 2) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0 || known.find(" " + word.substr(2) + " ") == std::string::npos)
      throw std::runtime_error("no option " + word);
    if (i + 1 == argc) throw std::runtime_error(word + " wants a value");
    given[word.substr(2)] = argv[i + 1];
  }
  for (const auto* key : {"y", "sigma", "noise", "out"})
    if (!given.count(key)) throw std::runtime_error(std::string("wants --") + key);
  return given;
}

// Normal numbers of the shape of the images.
at::Tensor normal(const std::string& path, const std::vector<int64_t>& shape) {
  auto x = npy::load(path);
  if (x.sizes() != at::IntArrayRef(shape)) {
    std::stringstream words;
    words << path << ": has shape " << x.sizes() << ", wanted that of the images, "
          << at::IntArrayRef(shape);
    throw std::runtime_error(words.str());
  }
  return x;
}

void run(int argc, char** argv) {
  const auto given = options(argc, argv);
  at::set_num_threads(static_cast<int>(whole(given, "threads", 1, 1024)));
  const c10::InferenceMode guard;
  const Network network(argv[1]);
  const auto y = npy::load(given.at("y"));
  const auto height = network.size[0].item<int64_t>(), width = network.size[1].item<int64_t>();
  const auto channels = std::stoll(network.text("channels"));
  const auto batch = std::stoll(network.text("batch"));
  if (y.dim() != 4 || y.size(1) != channels || y.size(0) > batch)
    throw std::runtime_error("y: wanted shape (B, " + std::to_string(channels) +
                             ", H, W) with B of at most " + std::to_string(batch));
  const auto a = physics(given, y);
  if (a->side(y.size(2)) != height || a->side(y.size(3)) != width)
    throw std::runtime_error("y: the images of the package are of " + std::to_string(height) +
                             " x " + std::to_string(width) + ", those behind y are not");
  const std::vector<int64_t> shape{y.size(0), channels, height, width};
  const auto noise = normal(given.at("noise"), shape);
  const double s_y = number(given, "sigma", 0);
  const auto grid = levels(3.0, 0.01, static_cast<int>(whole(given, "steps")));
  const auto repeat = whole(given, "repeat", 0);
  at::Tensor second;
  if (given.count("draw")) second = normal(given.at("draw"), shape);
  const auto denoise = [&](const at::Tensor& x, double s) {
    return network.estimate(x, s, *a, s_y);
  };
  const auto reconstruct = [&] {
    const auto mean = denoise(network.most * noise, network.most);
    return second.defined() ? draw(denoise, mean + grid[0] * second, grid) : mean;
  };
  auto x = reconstruct();
  if (!at::isfinite(x).all().item<bool>())
    throw std::runtime_error("the result is not finite, nothing is written; is --sigma right?");
  npy::save(given.at("out"), x);
  if (repeat == 0) return;
  const auto started = std::chrono::steady_clock::now();
  const auto cpu = std::clock();
  for (int64_t i = 0; i < repeat; ++i) x = reconstruct();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  std::cout << "{\"seconds\": " << wall.count() / repeat << ", \"cpu_seconds\": "
            << double(std::clock() - cpu) / CLOCKS_PER_SEC / repeat << "}\n";
}

int main(int argc, char** argv) {
  const bool asked = std::any_of(argv, argv + argc, [](const std::string& word) {
    return word == "--help" || word == "-h";
  });
  if (asked || argc < 2) {
    (asked ? std::cout : std::cerr) << kUsage;
    return asked ? 0 : 2;
  }
  try {
    run(argc, argv);
  } catch (const c10::Error& error) {
    std::cerr << "measurand-run: " << error.what_without_backtrace() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "measurand-run: " << error.what() << "\n";
    return 2;
  }
  return 0;
}
