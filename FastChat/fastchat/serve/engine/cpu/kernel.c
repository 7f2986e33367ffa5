/* Forward passes on a CPU over the cache of the engine.

   `attend` is attention alone, of one new token per row over the row's own part of the cache;
   `compute` is all layers of a model of Llama's shape, for any new tokens, and its logits. Compiled
   for one shape: GROUPS query heads to a key/value head, SIZE numbers to a query and key, VALUES to
   a value, BF16 defined where numbers are bfloat16 and not float32. Sums are float32; what PyTorch
   keeps between two modules is rounded here too. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#define ROWS 6 /* rows times columns of a tile of a product are sums in registers */
#else
#define LANES 8
#define ROWS 2
#endif
#define COLUMNS 4
#define CHUNK 32    /* columns of a product that a thread computes and writes together */
#define BLOCK 128   /* rows of it, and numbers of each, that the cache holds */
#define DEPTH 2048
#define TOKENS 64   /* attended over at a time */

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t whole __attribute__((vector_size(4 * LANES)));

#ifdef BF16
typedef uint16_t number;

static inline float wide(number x) {
    const uint32_t bits = (uint32_t)x << 16;
    float result;
    memcpy(&result, &bits, sizeof bits);
    return result;
}

static inline number narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16; /* to the nearest, ties to even */
}

static inline vector load(const number *x) {
    typedef uint16_t half __attribute__((vector_size(2 * LANES)));
    half read;
    memcpy(&read, x, sizeof read);
    return (vector)(__builtin_convertvector(read, whole) << 16);
}
#else
typedef float number;

static inline float wide(number x) { return x; }
static inline number narrow(float x) { return x; }

static inline vector load(const number *x) {
    vector read;
    memcpy(&read, x, sizeof read);
    return read;
}
#endif

/* e to the power x <= 0, to 2e-7 of it, at least e^-87; expf would be called number by number. */
static inline vector exponential(vector x) {
    const whole small = x < -87.0f;
    x = (vector)(((whole)x & ~small) | ((whole)((vector){0} - 87.0f) & small));
    const whole n = __builtin_convertvector(x * 1.44269504f - 0.5f, whole);
    const vector k = __builtin_convertvector(n, vector);
    const vector r = x - k * 0.693359375f + k * 2.12194440e-4f; /* ln 2 in two parts */
    vector sum = r * 1.9875691500e-4f + 1.3981999507e-3f;       /* the polynomial of Cephes */
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * r * r + r + 1;
    return sum * (vector)((n + 127) << 23);
}

/* A piece is what one instruction multiplies. */
#if defined(BF16) && defined(__AVX512BF16__)
#define PIECE 32
typedef __m512bh piece;

static inline piece take(const number *x) { return (piece)_mm512_loadu_si512(x); }
static inline vector add_product(vector sum, piece x, piece y) {
    return _mm512_dpbf16_ps(sum, x, y);
}
#else
#define PIECE LANES
typedef vector piece;

static inline piece take(const number *x) { return load(x); }
static inline vector add_product(vector sum, piece x, piece y) { return sum + x * y; }
#endif

#ifdef __AVX2__
#define IN_REGISTER(x) __asm__("" : "+v"(x)) /* and not read again for every product */
#else
#define IN_REGISTER(x)
#endif

/* sums[j] += the lanes of v[j]. */
static inline void add_lanes(const vector v[COLUMNS], float *sums) {
#ifdef __AVX512F__
    const __m512 a = v[0] + 0, b = v[1], c = v[2], d = v[3];
    const __m512 ab = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
    const __m512 cd = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
    const __m512d pairs = (__m512d)ab, others = (__m512d)cd;
    const __m512 all = (__m512)_mm512_unpacklo_pd(pairs, others) +
                       (__m512)_mm512_unpackhi_pd(pairs, others);
    const __m256 half = _mm512_castps512_ps256(all) +
                        (__m256)_mm512_extractf64x4_pd((__m512d)all, 1);
    const __m128 four = _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
    _mm_storeu_ps(sums, _mm_loadu_ps(sums) + four);
#else
    for (int j = 0; j < COLUMNS; j++)
        for (int i = 0; i < LANES; i++) sums[j] += v[j][i];
#endif
}

/* sums[i][j] += x[i] . w[j] over `depth` numbers; fetches what follows `skip` numbers behind w. */
static inline void add_tile(const number *const x[ROWS], const number *const w[COLUMNS], long depth,
                            long skip, float *const sums[ROWS]) {
    vector tile[ROWS][COLUMNS] = {{{0}}};
    long k = 0;
    for (; k + PIECE <= depth; k += PIECE) {
        piece columns[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) {
            columns[j] = take(w[j] + k);
            IN_REGISTER(columns[j]);
            if (skip) __builtin_prefetch(w[j] + k + skip, 0, 2);
        }
        for (int i = 0; i < ROWS; i++) {
            piece row = take(x[i] + k);
            IN_REGISTER(row);
            for (int j = 0; j < COLUMNS; j++) tile[i][j] = add_product(tile[i][j], row, columns[j]);
        }
    }
    for (int i = 0; i < ROWS; i++) add_lanes(tile[i], sums[i]);
    for (; k < depth; k++)
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++) sums[i][j] += wide(x[i][k]) * wide(w[j][k]);
}

static inline long least(long a, long b) { return a < b ? a : b; }

enum result { SET, ADD, SCORES };

struct linear {
    const number *weight, *bias; /* (width of the result, depth); none: NULL */
};

/* out = x . weight + bias for `rows` rows and `count` columns from `start` on. */
static void multiply_part(const number *x, long rows, long depth, const struct linear *by,
                          long start, long count, enum result result, void *out, long step) {
    float sums[BLOCK][CHUNK], unused[COLUMNS];
    for (long c = 0; c < CHUNK; c++) {
        const float bias = by->bias && c < count ? wide(by->bias[start + c]) : 0;
        for (long m = 0; m < rows; m++) sums[m][c] = bias;
    }
    for (long t = 0; t < count; t += COLUMNS)
        for (long k = 0; k < depth; k += DEPTH) {
            const number *w[COLUMNS];
            for (int j = 0; j < COLUMNS; j++)
                w[j] = by->weight + (start + least(t + j, count - 1)) * depth + k;
            for (long m = 0; m < rows; m += ROWS) {
                const number *some[ROWS];
                float *into[ROWS];
                for (int i = 0; i < ROWS; i++) {
                    some[i] = x + least(m + i, rows - 1) * depth + k;
                    into[i] = m + i < rows ? sums[m + i] + t : unused;
                }
                const int fetch = m == ROWS || rows <= ROWS;
                add_tile(some, w, least(DEPTH, depth - k), fetch ? COLUMNS * depth : 0, into);
            }
        }
    for (long m = 0; m < rows; m++) {
        number *row = (number *)out + m * step + start;
        float *scores = (float *)out + m * step + start;
        for (long c = 0; c < count; c++)
            if (result == SCORES) scores[c] = sums[m][c];
            else if (result == SET) row[c] = narrow(sums[m][c]);
            else row[c] = narrow(wide(row[c]) + wide(narrow(sums[m][c])));
    }
}

/* out = x . weight + bias of all rows, added to it (ADD) or as float (SCORES), by the threads of a
   parallel region, which do not wait for each other. */
static void multiply(const number *x, long rows, long depth, const struct linear *by, long width,
                     enum result result, void *out, long step) {
    const long size = result == SCORES ? sizeof(float) : sizeof(number);
#pragma omp for schedule(dynamic) nowait
    for (long start = 0; start < width; start += CHUNK)
        for (long row = 0; row < rows; row += BLOCK)
            multiply_part(x + row * depth, least(BLOCK, rows - row), depth, by, start,
                          least(CHUNK, width - start), result, (char *)out + row * step * size,
                          step);
}

/* Root mean square normalization of one row. */
static void normalize(const number *x, const number *weight, float epsilon, long size,
                      number *out) {
    float squares = 0;
    for (long i = 0; i < size; i++) squares += wide(x[i]) * wide(x[i]);
    const float scale = 1 / sqrtf(squares / size + epsilon);
    for (long i = 0; i < size; i++)
        out[i] = narrow(wide(narrow(wide(x[i]) * scale)) * wide(weight[i]));
}

/* All rows, by the threads of a parallel region, which wait for each other. */
static void normalize_all(const number *x, long rows, long size, const number *weight,
                          float epsilon, number *out) {
#pragma omp for
    for (long m = 0; m < rows; m++)
        normalize(x + m * size, weight, epsilon, size, out + m * size);
}

/* x times its sigmoid times y, of LANES numbers. */
static inline void open_gate(number *x, const number *y) {
    const vector old = load(x), other = load(y);
    const vector power = exponential((vector)((whole)old | INT32_MIN));
    const whole negative = old < 0, one = (whole)((vector){0} + 1);
    const vector part = (vector)(((whole)power & negative) | (one & ~negative));
    const vector opened = old * part / (1 + power);
    for (int i = 0; i < LANES; i++) x[i] = narrow(wide(narrow(opened[i])) * other[i]);
}

/* Rotary positions of one head, whose halves are rotated against each other. */
static void rotate(number *x, const float *cosines, const float *sines) {
    for (int d = 0; d < SIZE / 2; d++) {
        const int e = d + SIZE / 2;
        const float a = wide(x[d]), b = wide(x[e]);
        x[d] = narrow(a * cosines[d] - b * sines[d]);
        x[e] = narrow(b * cosines[e] + a * sines[e]);
    }
}

/* scores[g][t] = queries[g] . keys[t] for COLUMNS keys. */
static inline void score(const number *queries, long query_step, const number *const keys[COLUMNS],
                         float *const scores[GROUPS]) {
    vector tile[GROUPS][COLUMNS] = {{{0}}};
    for (int k = 0; k + PIECE <= SIZE; k += PIECE)
        for (int j = 0; j < COLUMNS; j++) {
            const piece key = take(keys[j] + k);
            for (int g = 0; g < GROUPS; g++)
                tile[g][j] = add_product(tile[g][j], take(queries + g * query_step + k), key);
        }
    for (int g = 0; g < GROUPS; g++) {
        for (int j = 0; j < COLUMNS; j++) scores[g][j] = 0;
        add_lanes(tile[g], scores[g]);
        for (int d = SIZE - SIZE % PIECE; d < SIZE; d++)
            for (int j = 0; j < COLUMNS; j++)
                scores[g][j] += wide(queries[g * query_step + d]) * wide(keys[j][d]);
    }
}

/* sum[g] += scores[g][t] * values[t] of `count` tokens. */
static inline void weigh(float scores[GROUPS][TOKENS], const number *values, long step, int count,
                         float sum[GROUPS][VALUES]) {
    const int whole = VALUES - VALUES % (2 * LANES);
    for (int d = 0; d < whole; d += 2 * LANES) {
        vector low[GROUPS], high[GROUPS];
        for (int g = 0; g < GROUPS; g++) {
            memcpy(&low[g], sum[g] + d, sizeof low[g]);
            memcpy(&high[g], sum[g] + d + LANES, sizeof high[g]);
        }
        for (int t = 0; t < count; t++) {
            const vector first = load(values + t * step + d);
            const vector second = load(values + t * step + d + LANES);
            for (int g = 0; g < GROUPS; g++) {
                low[g] += scores[g][t] * first;
                high[g] += scores[g][t] * second;
            }
        }
        for (int g = 0; g < GROUPS; g++) {
            memcpy(sum[g] + d, &low[g], sizeof low[g]);
            memcpy(sum[g] + d + LANES, &high[g], sizeof high[g]);
        }
    }
    for (int t = 0; t < count && whole < VALUES; t++)
        for (int g = 0; g < GROUPS; g++)
            for (int d = whole; d < VALUES; d++)
                sum[g][d] += scores[g][t] * wide(values[t * step + d]);
}

/* The GROUPS query heads of one row over its tokens, of which a mask may show some alone. The
   softmax is taken part by part, as in FlashAttention (arXiv 2205.14135, algorithm 1). */
static void attend_head(const number *queries, long query_step, const number *keys, long key_step,
                        const number *values, long value_step, const uint8_t *mask, long first,
                        long tokens, float scale, number *out) {
    float sum[GROUPS][VALUES] = {{0}}, scores[GROUPS][TOKENS];
    float largest[GROUPS], weight[GROUPS] = {0};
    for (int g = 0; g < GROUPS; g++) largest[g] = -INFINITY;
    while (mask && first < tokens && !mask[tokens - 1]) tokens--;
    while (mask && first < tokens && !mask[first]) first++;
    for (long start = first; start < tokens; start += TOKENS) {
        const int count = least(tokens - start, TOKENS);
        for (int t = 0; t < count; t += COLUMNS) {
            const number *some[COLUMNS];
            float *into[GROUPS];
            for (int j = 0; j < COLUMNS; j++)
                some[j] = keys + (start + least(t + j, count - 1)) * key_step;
            for (int g = 0; g < GROUPS; g++) into[g] = scores[g] + t;
            score(queries, query_step, some, into);
        }
        for (int g = 0; g < GROUPS; g++) {
            float top = largest[g];
            for (int t = 0; t < TOKENS; t++) {
                const int hidden = t >= count || (mask && !mask[start + t]);
                scores[g][t] = hidden ? -INFINITY : scores[g][t] * scale;
                top = scores[g][t] > top ? scores[g][t] : top;
            }
            const float base = top == -INFINITY ? 0 : top; /* all of this part may be masked */
            vector totals = {0};
            for (int t = 0; t < TOKENS; t += LANES) {
                vector some;
                memcpy(&some, scores[g] + t, sizeof some);
                some = exponential(some - base);
                memcpy(scores[g] + t, &some, sizeof some);
                totals += some;
            }
            const float shrink = expf(largest[g] - base);
            largest[g] = top;
            weight[g] *= shrink;
            for (int i = 0; i < LANES; i++) weight[g] += totals[i];
            for (int d = 0; d < VALUES; d++) sum[g][d] *= shrink;
        }
        weigh(scores, values + start * value_step, value_step, count, sum);
    }
    for (int g = 0; g < GROUPS; g++)
        for (int d = 0; d < VALUES; d++) out[g * VALUES + d] = narrow(sum[g][d] / weight[g]);
}

/* `strides` in numbers: of rows and heads of the queries; of rows, heads and tokens of the keys;
   the same of the values; of rows of the mask. `out` is (rows, heads x GROUPS, VALUES) without
   gaps. */
void attend(const number *queries, const number *keys, const number *values, const uint8_t *mask,
            number *out, long rows, long heads, long tokens, const long *strides, float scale,
            int threads) {
    const long *q = strides, *k = strides + 2, *v = strides + 5, *m = strides + 8;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long i = 0; i < rows * heads; i++) {
        const long row = i / heads, head = i % heads;
        attend_head(queries + row * q[0] + head * GROUPS * q[1], q[1],
                    keys + row * k[0] + head * k[1], k[2], values + row * v[0] + head * v[1], v[2],
                    mask + row * m[0], 0, tokens, scale, out + i * GROUPS * VALUES);
    }
}

struct layer {
    const number *before_attention, *before_mlp, *query_norm, *key_norm; /* the last two or NULL */
    struct linear query, key, value, output, gate, up, down;
    number *keys, *values; /* (slots, heads, length, SIZE) */
    long window;           /* of tokens that attention sees, with the new one */
};

struct model {
    long layers, hidden, heads, inner, vocabulary, length; /* heads: of keys; length: of a slot */
    float epsilon, scale;
    const number *embedding, *norm;
    struct linear head;
    const struct layer *layer;
};

/* Key and value of a token for one head, which go into the cache, and its queries. */
static void enter(const struct model *m, const struct layer *l, long cached, const float *cosines,
                  const float *sines, number *queries, number *key, const number *value) {
    if (l->key_norm) normalize(key, l->key_norm, m->epsilon, SIZE, key);
    rotate(key, cosines, sines);
    memcpy(l->keys + cached, key, SIZE * sizeof(number));
    memcpy(l->values + cached, value, SIZE * sizeof(number));
    for (number *query = queries; query < queries + GROUPS * SIZE; query += SIZE) {
        if (l->query_norm) normalize(query, l->query_norm, m->epsilon, SIZE, query);
        rotate(query, cosines, sines);
    }
}

/* `count` tokens at their places in their slots, and the logits after `answers` of them, those at
   `last`. `cosines` and `sines` are (count, SIZE), `scratch` has room for count x (2 hidden + 2
   inner + (2 GROUPS + 2) heads SIZE) + 32 numbers. */
void compute(const struct model *m, long count, const long *tokens, const long *slots,
             const long *places, const float *cosines, const float *sines, long answers,
             const long *last, number *scratch, float *logits, int threads) {
    const long hidden = m->hidden, inner = m->inner, heads = m->heads;
    const long all = heads * GROUPS * SIZE, some = heads * SIZE;
    number *states = scratch, *normal = states + count * hidden, *queries = normal + count * hidden;
    number *keys = queries + count * all, *values = keys + count * some;
    number *attended = values + count * some, *gate = attended + count * all;
    number *up = gate + (count * inner + LANES - 1) / LANES * LANES;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for
        for (long t = 0; t < count; t++)
            memcpy(states + t * hidden, m->embedding + tokens[t] * hidden, hidden * sizeof(number));
        for (const struct layer *l = m->layer; l < m->layer + m->layers; l++) {
            normalize_all(states, count, hidden, l->before_attention, m->epsilon, normal);
            multiply(normal, count, hidden, &l->query, all, SET, queries, all);
            multiply(normal, count, hidden, &l->key, some, SET, keys, some);
            multiply(normal, count, hidden, &l->value, some, SET, values, some);
#pragma omp barrier
#pragma omp for
            for (long i = 0; i < count * heads; i++) {
                const long t = i / heads, slot = slots[t] * heads + i % heads;
                enter(m, l, (slot * m->length + places[t]) * SIZE, cosines + t * SIZE,
                      sines + t * SIZE, queries + i * GROUPS * SIZE, keys + i * SIZE,
                      values + i * SIZE);
            }
#pragma omp for schedule(dynamic)
            for (long i = 0; i < count * heads; i++) {
                const long t = i / heads, slot = slots[t] * heads + i % heads;
                const long end = places[t] + 1, cached = slot * m->length * SIZE;
                attend_head(queries + i * GROUPS * SIZE, SIZE, l->keys + cached, SIZE,
                            l->values + cached, SIZE, NULL, end > l->window ? end - l->window : 0,
                            end, m->scale, attended + i * GROUPS * SIZE);
            }
            multiply(attended, count, all, &l->output, hidden, ADD, states, hidden);
#pragma omp barrier
            normalize_all(states, count, hidden, l->before_mlp, m->epsilon, normal);
            multiply(normal, count, hidden, &l->gate, inner, SET, gate, inner);
            multiply(normal, count, hidden, &l->up, inner, SET, up, inner);
#pragma omp barrier
#pragma omp for
            for (long i = 0; i < count * inner; i += LANES) open_gate(gate + i, up + i);
            multiply(gate, count, inner, &l->down, hidden, ADD, states, hidden);
#pragma omp barrier
        }
#pragma omp for
        for (long a = 0; a < answers; a++)
            normalize(states + last[a] * hidden, m->norm, m->epsilon, hidden, normal + a * hidden);
        multiply(normal, answers, hidden, &m->head, m->vocabulary, SCORES, logits, m->vocabulary);
    }
}
