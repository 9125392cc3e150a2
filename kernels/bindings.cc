// Python's door to the CPU kernels: exact dtype, rank and contiguity; the GIL is dropped while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "isa.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace umbra {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Samples = nb::ndarray<uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Image = nb::ndarray<float, nb::shape<kImageSide, kImageSide>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Map = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<uint32_t, nb::shape<kBins>, nb::c_contig, nb::device::cpu>;

const KernelTable* active = &best_kernels();

void use_isa(const std::string& name) {
  const KernelTable* table = kernels_named(name.c_str());
  if (!table) throw std::invalid_argument("isa: this processor or build has no '" + name + "'");
  active = table;
}

FrameView view(const Bytes& bytes, int width, int height, int64_t stride, int layout) {
  if (layout < 0 || layout > static_cast<int>(Layout::packed14))
    throw std::invalid_argument("layout: " + std::to_string(layout) + " is none of 0..8");
  const FrameView f{bytes.data(), stride, width, height, static_cast<Layout>(layout)};
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide)
    throw std::invalid_argument("frame: " + std::to_string(width) + "x" + std::to_string(height) +
                                ", wanted 1..32768 on each side");
  const int64_t row = row_bytes(f.layout, width);
  if (width % group_samples(f.layout))
    throw std::invalid_argument("width: " + std::to_string(width) + ", this layout wants a multiple of " +
                                std::to_string(group_samples(f.layout)));
  if (stride < row)
    throw std::invalid_argument("stride: " + std::to_string(stride) + " bytes, a row takes " + std::to_string(row));
  const int64_t wanted = stride * (height - 1) + row;
  if (static_cast<int64_t>(bytes.size()) < wanted)
    throw std::invalid_argument("frame: " + std::to_string(bytes.size()) + " bytes, wanted " + std::to_string(wanted));
  return f;
}

void unpack(const Bytes& bytes, int width, int height, int64_t stride, int layout, Samples out) {
  const FrameView f = view(bytes, width, height, stride, layout);
  if (out.shape(0) != static_cast<size_t>(height) || out.shape(1) != static_cast<size_t>(width))
    throw std::invalid_argument("out: its shape is not (height, width)");
  uint16_t* samples = out.data();
  nb::gil_scoped_release release;
  for (int r = 0; r < height; ++r)
    active->unpack_row(f.bytes + r * f.stride, f.layout, width, samples + int64_t(r) * width);
}

// Holds the buffers of one caller; not for two threads at once.
class Stretcher {
 public:
  Stretcher(float k, float z_range, int tone, float tone_parameter)
      : params_{k, z_range, static_cast<Tone>(tone), tone_parameter} {}

  nb::tuple run(const Bytes& bytes, int width, int height, int64_t stride, int layout, Image out) {
    const FrameView f = view(bytes, width, height, stride, layout);
    if (width < 4 || height < 4) throw std::invalid_argument("frame: noise needs at least 4x4 pixels");
    StretchStats s;
    {
      nb::gil_scoped_release release;
      s = active->stretch(f, params_, scratch_, out.data());
    }
    return nb::make_tuple(s.median, s.sigma, s.minimum, s.maximum, s.share_minimum, s.share_maximum,
                          static_cast<int>(s.fault), s.where, s.value);
  }

 private:
  StretchParams params_;
  StretchScratch scratch_;
};

class Reducer {
 public:
  Reducer(float threshold, float alpha) : params_{threshold, alpha} {}

  nb::tuple run(const Logits& logits, Map map, Counts histogram) {
    if (logits.shape(0) != 2 || map.shape(0) != logits.shape(1) || map.shape(1) != logits.shape(2))
      throw std::invalid_argument("logits: wanted (2, h, w) and a map of (h, w)");
    const auto count = static_cast<int64_t>(logits.shape(1) * logits.shape(2));
    ReduceResult r;
    {
      nb::gil_scoped_release release;
      r = active->reduce(logits.data(), logits.data() + count, count, params_, scratch_, map.data());
      std::memcpy(histogram.data(), r.histogram, sizeof r.histogram);
    }
    return nb::make_tuple(r.m_thresh, r.m_alpha, r.peak, r.non_finite);
  }

 private:
  ReduceParams params_;
  ReduceScratch scratch_;
};

}  // namespace
}  // namespace umbra

NB_MODULE(_native, m) {
  using namespace umbra;
  m.def("isa", [] { return std::string(active->name); });
  m.def("use_isa", &use_isa, "name"_a);
  m.def("has_isa", [](const std::string& name) { return kernels_named(name.c_str()) != nullptr; }, "name"_a);
  m.def(
      "row_bytes", [](int layout, int64_t width) { return row_bytes(static_cast<Layout>(layout), width); }, "layout"_a,
      "width"_a);
  m.def("unpack", &unpack, "bytes"_a.noconvert(), "width"_a, "height"_a, "stride"_a, "layout"_a, "out"_a.noconvert());
  nb::class_<Stretcher>(m, "Stretcher")
      .def(nb::init<float, float, int, float>(), "k"_a, "z_range"_a, "tone"_a, "tone_parameter"_a)
      .def("run", &Stretcher::run, "bytes"_a.noconvert(), "width"_a, "height"_a, "stride"_a, "layout"_a,
           "out"_a.noconvert());
  nb::class_<Reducer>(m, "Reducer")
      .def(nb::init<float, float>(), "threshold"_a, "alpha"_a)
      .def("run", &Reducer::run, "logits"_a.noconvert(), "map"_a.noconvert(), "histogram"_a.noconvert());
}
