#include "fovea/recipes/patient_inputs.h"

#include <cmath>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/data/radiomics.h"
#include "fovea/data/voxels.h"
#include "fovea/infer/sentence_encoder.h"
#include "fovea/io/data_folder.h"
#include "fovea/io/sha256.h"

namespace fovea::recipes {

namespace {
std::string text_of(const data::Patient& patient) {
  std::string text;
  for (const std::string& part : patient.texts)
    if (!part.empty()) text += (text.empty() ? "" : "\n") + part;
  return text;
}

// Where all-MiniLM-L6-v2 lies.
std::filesystem::path minilm_folder() {
  const auto found = io::find_data("minilm");
  if (!found) throw IoError(io::data_folder() / "minilm", "is not there, expected the text encoder all-MiniLM-L6-v2; fetch it with scripts/data minilm (91 MB)");
  return *found;
}
std::filesystem::path weights_of(const std::filesystem::path& encoder) { return encoder / "model.safetensors"; }

// Every piece of every patient's text, read by the frozen encoder.
void encode_frozen(const data::PatientTable& table, const PatientInputs& inputs, models::PatientBatch& batch) {
  const auto folder = minilm_folder();
  if (const auto found = io::sha256_file(weights_of(folder)); found != inputs.text_encoder_sha256)
    throw IoError(weights_of(folder), "is another text encoder than in training: SHA-256 " + found.substr(0, 12) + "..., expected " + inputs.text_encoder_sha256.substr(0, 12) + "...");
  std::vector<std::string> texts;
  std::vector<int64_t> rows;
  for (size_t r = 0; r < table.patients.size(); ++r)
    if (auto text = text_of(table.patients[r]); !text.empty()) texts.push_back(std::move(text)), rows.push_back(int64_t(r));
  const auto pieces = infer::SentenceEncoder(folder).pieces(texts, inputs.text_tokens);
  batch.text_vectors = torch::zeros({int64_t(table.patients.size()), inputs.text_tokens, inputs.text_width});
  for (size_t i = 0; i < rows.size(); ++i) {
    batch.text_vectors[rows[i]].copy_(pieces.vectors[int64_t(i)]);
    for (size_t t = 0; t < pieces.numbers[i].size(); ++t) batch.text[rows[i]][int64_t(t)] = pieces.numbers[i][t];
  }
}
}  // namespace

ColumnScaling ColumnScaling::of(const std::vector<std::vector<double>>& rows, size_t columns) {
  ColumnScaling out;
  for (size_t c = 0; c < columns; ++c) {
    double n = 0, sum = 0, squares = 0;
    for (const auto& row : rows)
      if (!std::isnan(row[c])) n += 1, sum += row[c];
    const double mean = n ? sum / n : 0;
    for (const auto& row : rows)
      if (!std::isnan(row[c])) squares += (row[c] - mean) * (row[c] - mean);
    const double deviation = n ? std::sqrt(squares / n) : 0;
    out.mean.push_back(mean), out.deviation.push_back(deviation > 0 ? deviation : 1);
  }
  return out;
}

std::vector<double> ColumnScaling::apply(const std::vector<double>& row) const {
  std::vector<double> out(row.size());
  for (size_t c = 0; c < row.size(); ++c) out[c] = (row[c] - mean[c]) / deviation[c];
  return out;
}

PatientInputs PatientInputs::fit(const data::PatientTable& table, const std::vector<int64_t>& training_rows, const data::FixedGridConfig& image, int64_t text_tokens,
                                 const std::vector<std::vector<double>>& measures, PatientText text_encoder) {
  PatientInputs out;
  out.columns = table.columns, out.image = image;
  std::vector<std::vector<double>> numbers;
  std::vector<std::string> texts;
  for (const int64_t r : training_rows) {
    numbers.push_back(table.patients[size_t(r)].numbers);
    texts.push_back(text_of(table.patients[size_t(r)]));
  }
  out.numbers = ColumnScaling::of(numbers, table.columns.numbers.size());
  if (!measures.empty()) {
    std::vector<std::vector<double>> rows;
    for (const int64_t r : training_rows) rows.push_back(measures[size_t(r)]);
    out.use_measures = true, out.measures = ColumnScaling::of(rows, data::radiomics_names().size());
  }
  if (!table.columns.texts.empty()) {
    auto pieces = text_encoder == PatientText::kOwn ? io::WordPieces::from_texts(texts) : io::WordPieces::read(minilm_folder() / "vocab.txt");
    if (text_encoder == PatientText::kMiniLm) {
      const auto folder = minilm_folder();
      out.text_encoder = text_encoder, out.text_encoder_sha256 = io::sha256_file(weights_of(folder));
      out.text_width = infer::SentenceEncoder(folder).network()->config().dim;
    }
    for (int64_t i = 0; i < pieces.size(); ++i) out.vocabulary.push_back(pieces.piece(i));
    out.text_tokens = text_tokens;
  }
  return out;
}

void PatientInputs::describe(models::PatientNetworkConfig& network) const {
  network.images = int64_t(columns.images.size());
  network.grid.assign(image.shape.begin(), image.shape.end());
  network.numbers = int64_t(columns.numbers.size());
  network.categories.clear();
  for (const auto& [column, words] : columns.categories) network.categories.push_back(int64_t(words.size()));
  network.measures = int64_t(measures.mean.size());
  network.vocabulary = int64_t(vocabulary.size());
  if (network.vocabulary > 0) network.text_tokens = text_tokens;
  network.text_width = text_width;
}

std::vector<std::string> PatientInputs::modality_names() const {
  std::vector<std::string> names = columns.images;
  if (!columns.numbers.empty() || !columns.categories.empty()) names.push_back("table");
  if (use_measures) names.push_back("measures");
  if (!vocabulary.empty()) names.push_back("text");
  return names;
}

int64_t EncodedPatients::count() const {
  for (const auto& t : {inputs.images, inputs.numbers, inputs.codes, inputs.text})
    if (t.defined()) return t.size(0);
  return 0;
}

models::PatientBatch EncodedPatients::rows(const torch::Tensor& rows) const {
  const auto of = [&](const torch::Tensor& t) { return t.defined() ? t.index_select(0, rows) : t; };
  return {of(inputs.images), of(inputs.images_present), of(inputs.numbers), of(inputs.codes), of(inputs.measures), of(inputs.text), of(inputs.text_vectors)};
}

std::vector<std::vector<double>> region_measures(const data::PatientTable& table) {
  const size_t features = data::radiomics_names().size();
  std::vector<std::vector<double>> rows;
  Progress bar("measure regions", int64_t(table.patients.size()));
  for (const data::Patient& one : table.patients) {
    std::vector<double> row(features, std::numeric_limits<double>::quiet_NaN());
    if (one.mask && !one.images.empty() && one.images[0]) {
      const Volume image = data::read_volume(*one.images[0], "image");
      try {
        const auto found = data::radiomics(image, data::foreground_of(data::read_volume(*one.mask, "mask")));
        for (size_t f = 0; f < features; ++f) row[f] = found[f].value;
      } catch (const ArgumentError& error) {
        throw ArgumentError("patient '" + one.id + "', mask " + one.mask->string() + ": " + error.what());
      }
    }
    rows.push_back(std::move(row));
    bar.advance();
  }
  return rows;
}

EncodedPatients encode(const data::PatientTable& table, const PatientInputs& inputs, const std::vector<std::vector<double>>& measures) {
  const auto& columns = inputs.columns;
  const int64_t n = int64_t(table.patients.size()), images = int64_t(columns.images.size());
  const auto& shape = inputs.image.shape;
  EncodedPatients out;
  if (images > 0) {
    out.inputs.images = torch::zeros({n, images, shape[0], shape[1], shape[2]});
    out.inputs.images_present = torch::zeros({n, images}, torch::kBool);
    out.grids.resize(size_t(n)), out.boxes.resize(size_t(n));
    if (!columns.mask.empty()) out.masks = torch::full({n, shape[0], shape[1], shape[2]}, -1, torch::kLong);
  }
  out.inputs.numbers = torch::full({n, int64_t(columns.numbers.size())}, std::numeric_limits<float>::quiet_NaN());
  out.inputs.codes = torch::full({n, int64_t(columns.categories.size())}, -1, torch::kLong);
  if (!inputs.vocabulary.empty()) out.inputs.text = torch::zeros({n, inputs.text_tokens}, torch::kLong);
  if (inputs.use_measures) {
    const auto& raw = measures.empty() ? region_measures(table) : measures;
    out.inputs.measures = torch::empty({n, int64_t(inputs.measures.mean.size())});
    for (int64_t r = 0; r < n; ++r) {
      const auto row = inputs.measures.apply(raw[size_t(r)]);
      for (size_t c = 0; c < row.size(); ++c) out.inputs.measures[r][int64_t(c)] = row[c];
    }
  }
  if (columns.has_label()) out.label = torch::full({n}, -1, torch::kLong);
  if (columns.has_survival()) out.time = torch::zeros({n}, torch::kDouble), out.event = torch::zeros({n}, torch::kBool);
  std::optional<io::WordPieces> pieces;
  if (inputs.text_encoder == PatientText::kMiniLm) encode_frozen(table, inputs, out.inputs);
  else if (!inputs.vocabulary.empty()) pieces = io::WordPieces::from_pieces(inputs.vocabulary, table.file);

  Progress bar("read patients", images > 0 ? n : 0);
  for (int64_t r = 0; r < n; ++r) {
    const data::Patient& one = table.patients[size_t(r)];
    for (int64_t i = 0; i < images; ++i) {
      if (!one.images[size_t(i)]) continue;
      const auto grid = data::read_fixed_grid(*one.images[size_t(i)], i == 0 || inputs.image.field_mm > 0 ? one.mask : std::nullopt, inputs.image);
      out.inputs.images[r][i].copy_(grid.voxels);
      out.inputs.images_present[r][i] = true;
      if (i > 0) continue;
      out.grids[size_t(r)] = grid.grid, out.boxes[size_t(r)] = grid.box;
      if (grid.mask.defined()) out.masks[r].copy_(grid.mask);
    }
    const auto numbers = inputs.numbers.apply(one.numbers);
    for (size_t c = 0; c < numbers.size(); ++c) out.inputs.numbers[r][int64_t(c)] = numbers[c];
    for (size_t c = 0; c < one.codes.size(); ++c) out.inputs.codes[r][int64_t(c)] = one.codes[c];
    if (const std::string text = text_of(one); pieces && !text.empty()) {
      const auto ids = pieces->encode(text, inputs.text_tokens);
      for (size_t t = 0; t < ids.size(); ++t) out.inputs.text[r][int64_t(t)] = ids[t];
    }
    if (one.label) out.label[r] = *one.label;
    if (one.time) out.time[r] = *one.time;
    if (one.event) out.event[r] = *one.event;
    if (images > 0) bar.advance();
  }
  return out;
}

}  // namespace fovea::recipes
