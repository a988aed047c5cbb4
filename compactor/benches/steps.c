// Steps of ours once more, as a plug-in: what `compactor bench plugins` runs beside them.
//
//   clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -Wl,--strip-all -o steps.wasm steps.c
#include "../../deploy/plugins/plugin.h"

#define DIGITS {.flat = DECIMAL, .precision = 38, .scale = 2}

static const argument BOUNDS[] = {
    {TEXT("min"), TEXT("The least value."), ARGUMENT_WHOLE, .required = true},
    {TEXT("max"), TEXT("The greatest value."), ARGUMENT_WHOLE, .required = true},
};
static const argument SEPARATOR[] = {
    {TEXT("separator"), TEXT("What stands between the parts; not empty."), ARGUMENT_TEXT, .required = true},
};
static const function FUNCTIONS[] = {
    {
        .name = TEXT("clamp"),
        .about = TEXT("Values beyond a bound become the bound."),
        .reads = {.how = READS_ONE, .data_type = {.flat = LONG}},
        .gives = {.flat = LONG},
        .arguments = {BOUNDS, 2},
    },
    {
        .name = TEXT("lower"),
        .about = TEXT("Letters of ASCII become small ones."),
        .reads = {.how = READS_ONE, .data_type = {.flat = STRING}},
        .gives = {.flat = STRING},
    },
    {
        .name = TEXT("split"),
        .about = TEXT("Text to a list, cut at a separator."),
        .reads = {.how = READS_ONE, .data_type = {.flat = STRING}},
        .gives = {.is_list = true, .flat = STRING},
        .arguments = {SEPARATOR, 1},
    },
    {
        .name = TEXT("joinList"),
        .about = TEXT("A list of texts as one text; null elements are left out."),
        .reads = {.how = READS_ONE, .data_type = {.is_list = true, .flat = STRING}},
        .gives = {.flat = STRING},
        .arguments = {SEPARATOR, 1},
    },
    {
        .name = TEXT("sum"),
        .about = TEXT("The sum of columns, exactly."),
        .reads = {.how = READS_SEVERAL, .data_type = DIGITS},
        .gives = DIGITS,
        .rejects = TEXT("a sum of more than 38 digits"),
    },
};

DESCRIBE const functions *describe(void) {
    static functions all;
    all = (functions){FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS};
    return &all;
}

static outcome out;

// A column of text whose rows, or elements, end where `offsets` say.
static column texts(const int32_t *offsets, uint32_t count, const uint8_t *values) {
    return (column){.data_type = {.flat = STRING}, .offsets = offsets, .offsets_length = count + 1,
                    .values = values, .values_length = offsets[count]};
}

static column clamp(const value *arguments, const column *in, uint32_t rows) {
    int64_t least = arguments[0].whole, most = arguments[1].whole;
    const int64_t *from = (const int64_t *)in->values;
    int64_t *to = take(rows * sizeof *to, 8);
    for (uint32_t row = 0; row < rows; row++) to[row] = from[row] < least ? least : from[row] > most ? most : from[row];
    return (column){.data_type = {.flat = LONG}, .values = (const uint8_t *)to, .values_length = rows * 8};
}

static column lower(const column *in, uint32_t rows) {
    uint8_t *to = take(in->values_length + 1, 1);
    for (uint32_t i = 0; i < in->values_length; i++) {
        uint8_t c = in->values[i];
        to[i] = c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    }
    return texts(in->offsets, rows, to);
}

// Whether the text begins with the separator.
static bool begins(const uint8_t *at, const uint8_t *end, text separator) {
    if ((size_t)(end - at) < separator.length) return false;
    for (uint32_t i = 0; i < separator.length; i++)
        if (at[i] != separator.at[i]) return false;
    return true;
}

static column split(text separator, const column *in, uint32_t rows) {
    uint32_t parts_max = rows;
    for (uint32_t i = 0; i < in->values_length; i++) parts_max += in->values[i] == separator.at[0];
    int32_t *lists = take((rows + 1) * sizeof *lists, 4), *offsets = take((parts_max + 1) * sizeof *offsets, 4);
    uint8_t *values = take(in->values_length + 1, 1), *to = values;
    uint32_t parts = 0;
    lists[0] = offsets[0] = 0;
    for (uint32_t row = 0; row < rows; row++) {
        const uint8_t *at = in->values + in->offsets[row], *end = in->values + in->offsets[row + 1];
        while (at < end) {
            if (begins(at, end, separator)) {
                offsets[++parts] = to - values;
                at += separator.length;
            } else {
                *to++ = *at++;
            }
        }
        offsets[++parts] = to - values;
        lists[row + 1] = parts;
    }
    column made = texts(offsets, parts, values);
    made.data_type.is_list = true;
    made.has_lists = true;
    made.lists.offsets = lists;
    made.lists.offsets_length = rows + 1;
    return made;
}

static column join_list(text separator, const column *in, uint32_t rows) {
    uint32_t elements = in->lists.offsets[rows];
    int32_t *offsets = take((rows + 1) * sizeof *offsets, 4);
    uint8_t *values = take(in->values_length + elements * separator.length + 1, 1), *to = values;
    offsets[0] = 0;
    for (uint32_t row = 0; row < rows; row++) {
        bool first = true;
        for (int32_t i = in->lists.offsets[row]; i < in->lists.offsets[row + 1]; i++) {
            if (!has_value(in, i)) continue;
            for (uint32_t j = 0; !first && j < separator.length; j++) *to++ = separator.at[j];
            for (int32_t j = in->offsets[i]; j < in->offsets[i + 1]; j++) *to++ = in->values[j];
            first = false;
        }
        offsets[row + 1] = to - values;
    }
    return texts(offsets, rows, values);
}

static column sum(const column *in, uint32_t columns, uint32_t rows) {
    __int128 beyond = 1;
    for (uint32_t i = 0; i < 38; i++) beyond = (beyond << 3) + (beyond << 1);
    __int128 *sums = take(rows * sizeof *sums, 16);
    uint32_t *rejected = take(rows * sizeof *rejected, 4);
    for (uint32_t row = 0; row < rows; row++) {
        __int128 all = 0;
        bool over = false;
        for (uint32_t i = 0; i < columns; i++)
            over |= __builtin_add_overflow(all, ((const __int128 *)in[i].values)[row], &all);
        sums[row] = all;
        if (over || all <= -beyond || all >= beyond) rejected[out.made.rejected_length++] = row;
    }
    out.made.rejected = rejected;
    return (column){.data_type = DIGITS, .values = (const uint8_t *)sums, .values_length = rows * 16};
}

CALL const outcome *call(const uint8_t *name, uint32_t name_length, const value *arguments, uint32_t arguments_length,
                         const column *columns, uint32_t columns_length, uint32_t rows) {
    (void)name_length;
    bool separates = arguments_length == 1;
    if (separates && arguments[0].text.length == 0) {
        out.failed = true;
        out.error = (text)TEXT("`separator` must not be empty");
        return &out;
    }
    switch (name[0]) {
    case 'c': out.made.column = clamp(arguments, columns, rows); break;
    case 'l': out.made.column = lower(columns, rows); break;
    case 'j': out.made.column = join_list(arguments[0].text, columns, rows); break;
    default:
        out.made.column = separates ? split(arguments[0].text, columns, rows) : sum(columns, columns_length, rows);
    }
    return &out;
}
