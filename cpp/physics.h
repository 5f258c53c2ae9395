// The operators whose data step has a closed form: y = A x + noise, images (B, C, H, W).
//
//   prox(v, gamma) = (A^H A + gamma)^-1 (A^H y + gamma v),   gamma (B, 1, 1, 1)
//   guess()        = A^H y / A^H A 1, holes filled from coarser pixels
//
// The same formulas as in measurand/operators, which is where they are derived and tested.
#pragma once

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

struct Physics {
  at::Tensor y;
  double norm = 1;   // ||A||
  double trace = 1;  // tr(A^H A) / n
  virtual ~Physics() = default;
  virtual at::Tensor prox(const at::Tensor& v, const at::Tensor& gamma) const = 0;
  virtual at::Tensor guess() const = 0;
  // Side of the image that a side of y stands for.
  virtual int64_t side(int64_t n) const { return n; }
};

// x / seen, where little was seen from coarser pixels (push-pull, as in solvers/start.py).
inline at::Tensor filled(const at::Tensor& x, const at::Tensor& seen) {
  const double enough = 0.1;
  const auto height = x.size(-2), width = x.size(-1);
  const auto whole = (seen > enough).flatten(1).all(1).reshape({-1, 1, 1, 1});
  const auto quotient = x / seen.clamp_min(std::numeric_limits<float>::min());
  if (std::max(height, width) == 1 || whole.all().item<bool>()) return quotient;
  const std::vector<int64_t> halves{height > 1 ? 2 : 1, width > 1 ? 2 : 1}, size{height, width};
  const auto half = [&](const at::Tensor& t) { return at::avg_pool2d(t, halves, {}, 0, true); };
  const auto fine = at::upsample_bilinear2d(filled(half(x), half(seen)), size, false);
  const double weight = enough * enough;
  return at::where(whole, quotient, (x + weight * fine) / (seen + weight));
}

// Periodic blur by one kernel (h, w) with its centre at (h / 2, w / 2).
struct Blur : Physics {
  at::Tensor data, power;  // conj(K) F y, |K|^2

  Blur(const at::Tensor& y_, const at::Tensor& kernel) {
    y = y_;
    if (kernel.dim() < 2 || kernel.numel() != kernel.size(-2) * kernel.size(-1))
      throw std::runtime_error("the kernel wants a shape (h, w), one for all channels and items");
    const auto k = kernel.reshape({kernel.size(-2), kernel.size(-1)});
    const auto height = y.size(-2), width = y.size(-1), h = k.size(0), w = k.size(1);
    if (h > height || w > width) throw std::runtime_error("the kernel is larger than the image");
    const auto whole = at::constant_pad_nd(k, {0, width - w, 0, height - h});
    const auto spectrum = at::fft_rfft2(whole.roll({-(h / 2), -(w / 2)}, {0, 1}));
    power = at::abs(spectrum).square();
    data = at::fft_rfft2(y) * spectrum.conj();
    norm = std::sqrt(power.max().item<double>());
    if (norm == 0) throw std::runtime_error("the kernel is zero everywhere");
    trace = k.to(at::kDouble).square().sum().item<double>();
  }

  at::Tensor prox(const at::Tensor& v, const at::Tensor& gamma) const override {
    const auto sum = data + at::fft_rfft2(v) * gamma;
    const std::vector<int64_t> size{v.size(-2), v.size(-1)};
    return at::fft_irfft2(sum / (power + gamma), at::IntArrayRef(size));
  }

  at::Tensor guess() const override {
    const std::vector<int64_t> size{y.size(-2), y.size(-1)};
    const auto back = at::fft_irfft2(data, at::IntArrayRef(size));
    const double seen = power[0][0].item<double>();  // of a constant
    return back / (seen > 1e-5 * norm * norm ? seen : norm * norm);
  }
};

// Missing pixels: one mask for all items, which broadcasts to the image.
struct Mask : Physics {
  at::Tensor mask;

  Mask(const at::Tensor& y_, const at::Tensor& mask_) {
    y = y_;
    mask = mask_;
    while (mask.dim() < y.dim()) mask = mask.unsqueeze(0);
    if (mask.dim() != 4 || mask.size(0) != 1)
      throw std::runtime_error("the mask wants a shape (H, W) or (C, H, W), one for all items");
    if (!at::is_expandable_to(mask.sizes(), y.sizes()))
      throw std::runtime_error("the mask has another size than y");
    norm = mask.abs().max().item<double>();
    if (norm == 0) throw std::runtime_error("the mask is zero everywhere");
    trace = mask.to(at::kDouble).square().mean().item<double>();
  }

  at::Tensor prox(const at::Tensor& v, const at::Tensor& gamma) const override {
    return (mask * y + gamma * v) / (mask.square() + gamma);
  }

  at::Tensor guess() const override {
    const auto peak = mask.square().flatten(1).amax(1).reshape({-1, 1, 1, 1});
    return filled(mask * y / peak, (mask.square() / peak).expand_as(y));
  }
};

// Averages over blocks of s x s pixels; y is the small image.
struct BlockAverage : Physics {
  int64_t s;

  BlockAverage(const at::Tensor& y_, int64_t factor) : s(factor) {
    if (s < 1) throw std::runtime_error("the factor is below 1");
    y = y_;
    norm = 1.0 / double(s);
    trace = 1.0 / double(s * s * s * s);
  }

  at::Tensor prox(const at::Tensor& v, const at::Tensor& gamma) const override {
    return v + spread((y - at::avg_pool2d(v, {s, s})) / (1 + double(s * s) * gamma));
  }

  at::Tensor guess() const override { return spread(y); }

  int64_t side(int64_t n) const override { return s * n; }

  at::Tensor spread(const at::Tensor& x) const {
    return x.repeat_interleave(s, -2).repeat_interleave(s, -1);
  }
};
