// A Firn plug-in in C. `bank.iban` writes account numbers as banks do and refuses what is none; `bank.share` divides;
// `bank.total` adds up a list.
//
//   clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -Wl,--strip-all -o bank.wasm bank.c
#include "../plugin.h"

static const named_column SHARE_READS[] = {
    {TEXT("part"), TEXT("The part."), {.flat = LONG}},
    {TEXT("whole"), TEXT("The whole."), {.flat = LONG}},
};
static const argument SHARE_ARGUMENTS[] = {
    {.name = TEXT("scale"), .about = TEXT("What the whole counts as, such as 100; else 1."), .type = ARGUMENT_NUMBER},
};
static const argument IBAN_ARGUMENTS[] = {
    {.name = TEXT("country"), .about = TEXT("Only accounts of this country, two capitals."), .type = ARGUMENT_TEXT},
};
static const function FUNCTIONS[] = {
    {
        .name = TEXT("iban"),
        .about = TEXT("An account number (IBAN) in capitals and without blanks."),
        .reads = {.how = READS_ONE, .data_type = {.flat = STRING}},
        .gives = {.flat = STRING},
        .rejects = TEXT("text that is no IBAN, or of another country"),
        .arguments = {IBAN_ARGUMENTS, 1},
    },
    {
        .name = TEXT("share"),
        .about = TEXT("part / whole, 0 where the whole is 0."),
        .reads = {.how = READS_NAMED, .named = {SHARE_READS, 2}},
        .gives = {.flat = DOUBLE},
        .arguments = {SHARE_ARGUMENTS, 1},
    },
    {
        .name = TEXT("total"),
        .about = TEXT("The sum of a list of amounts; those that are null are left out."),
        .reads = {.how = READS_ONE, .data_type = {.is_list = true, .flat = DECIMAL, .precision = 18, .scale = 2}},
        .gives = {.flat = DECIMAL, .precision = 18, .scale = 2},
        .rejects = TEXT("a sum of more than 18 digits"),
    },
};

DESCRIBE const functions *describe(void) {
    static functions all;
    all = (functions){FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS};
    return &all;
}

static outcome out;

static const outcome *failed(text why) {
    out.failed = true;
    out.error = why;
    return &out;
}

static bool digit(uint8_t c) { return c >= '0' && c <= '9'; }
static bool letter(uint8_t c) { return c >= 'A' && c <= 'Z'; }

// Writes capitals without blanks; the length, or -1 for what is no account number (ISO 13616).
static int32_t normal(const uint8_t *from, uint32_t length, uint8_t *to) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < length; i++) {
        uint8_t c = from[i];
        if (c == ' ' || c == '-') continue;
        if (c >= 'a' && c <= 'z') c -= 'a' - 'A';
        if ((!digit(c) && !letter(c)) || n == 34) return -1;
        to[n++] = c;
    }
    if (n < 15 || !letter(to[0]) || !letter(to[1]) || !digit(to[2]) || !digit(to[3])) return -1;
    uint32_t remainder = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t c = to[(i + 4) % n];
        remainder = (digit(c) ? remainder * 10 + (c - '0') : remainder * 100 + (c - 'A' + 10)) % 97;
    }
    return remainder == 1 ? (int32_t)n : -1;
}

static const outcome *iban(const value *arguments, uint32_t count, const column *in, uint32_t rows) {
    const uint8_t *country = 0;
    if (count == 1) {
        text word = arguments[0].text;
        if (word.length != 2 || !letter(word.at[0]) || !letter(word.at[1]))
            return failed((text)TEXT("`country` must be two capitals"));
        country = word.at;
    }
    int32_t *offsets = take((rows + 1) * sizeof *offsets, 4);
    uint8_t *values = take(in->values_length + 1, 1);
    uint32_t *rejected = take(rows * sizeof *rejected, 4);
    uint32_t refused = 0;
    offsets[0] = 0;
    for (uint32_t row = 0; row < rows; row++) {
        // Where there is no value the result is null, whatever is made of the empty text that stands for it.
        uint8_t *to = values + offsets[row];
        int32_t length = normal(in->values + in->offsets[row], in->offsets[row + 1] - in->offsets[row], to);
        if (length < 0 || (country && (to[0] != country[0] || to[1] != country[1]))) {
            rejected[refused++] = row;
            length = 0;
        }
        offsets[row + 1] = offsets[row] + length;
    }
    out.made.column = (column){.data_type = {.flat = STRING}, .offsets = offsets, .offsets_length = rows + 1,
                               .values = values, .values_length = offsets[rows]};
    out.made.rejected = rejected;
    out.made.rejected_length = refused;
    return &out;
}

static const outcome *share(const value *arguments, uint32_t count, const column *in, uint32_t rows) {
    double scale = count == 1 ? arguments[0].number : 1;
    const int64_t *part = (const int64_t *)in[0].values, *whole = (const int64_t *)in[1].values;
    double *values = take(rows * sizeof *values, 8);
    for (uint32_t row = 0; row < rows; row++)
        values[row] = whole[row] == 0 ? 0 : (double)part[row] / (double)whole[row] * scale;
    out.made.column = (column){.data_type = {.flat = DOUBLE}, .values = (const uint8_t *)values, .values_length = rows * 8};
    return &out;
}

static const outcome *total(const column *in, uint32_t rows) {
    static const __int128 BEYOND = 1000000000000000000;           // 19 digits
    const __int128 *amounts = (const __int128 *)in->values;
    __int128 *sums = take(rows * sizeof *sums, 16);
    uint32_t *rejected = take(rows * sizeof *rejected, 4);
    uint32_t refused = 0;
    for (uint32_t row = 0; row < rows; row++) {
        sums[row] = 0;
        for (int32_t i = in->lists.offsets[row]; i < in->lists.offsets[row + 1]; i++)
            if (has_value(in, i)) sums[row] += amounts[i];
        if (sums[row] <= -BEYOND || sums[row] >= BEYOND) rejected[refused++] = row;
    }
    out.made.column = (column){.data_type = FUNCTIONS[2].gives, .values = (const uint8_t *)sums, .values_length = rows * 16};
    out.made.rejected = rejected;
    out.made.rejected_length = refused;
    return &out;
}

CALL const outcome *call(const uint8_t *name, uint32_t name_length, const value *arguments, uint32_t arguments_length,
                         const column *columns, uint32_t columns_length, uint32_t rows) {
    // The caller has seen to names, types and the number of columns.
    (void)name_length, (void)columns_length;
    switch (name[0]) {
    case 'i': return iban(arguments, arguments_length, columns, rows);
    case 's': return share(arguments, arguments_length, columns, rows);
    default: return total(columns, rows);
    }
}
