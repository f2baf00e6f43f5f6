// Package size reads and writes a number of bytes as people write it: 4096, 64KiB,
// 10GiB, 1.5TiB.
//
// A unit with "i", or a lone letter as qemu-img takes it (10G), counts in 1024s; a unit
// with B and no "i" (10GB) counts in 1000s. Case does not matter.
package size

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Bytes is a number of bytes. *Bytes is a pflag.Value, so that a flag can be
// declared with one.
type Bytes uint64

// Units of 1024.
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
	PiB
	EiB
)

const letters = "KMGTPE"

// unit returns the factor that a suffix stands for.
func unit(suffix string) (factor uint64, ok bool) {
	s := strings.ToUpper(suffix)
	if s == "" || s == "B" {
		return 1, true
	}
	power := strings.IndexByte(letters, s[0]) + 1
	if power == 0 {
		return 0, false
	}
	switch s[1:] {
	case "", "IB":
		return 1 << (10 * power), true
	case "B":
		factor = 1
		for range power {
			factor *= 1000
		}
		return factor, true
	}
	return 0, false
}

// Parse reads a size. A fraction is allowed if the result is a whole number of bytes.
func Parse(text string) (Bytes, error) {
	s := strings.TrimSpace(text)
	end := strings.LastIndexAny(s, "0123456789.") + 1
	number, suffix := s[:end], strings.TrimSpace(s[end:])
	factor, ok := unit(suffix)
	if !ok {
		return 0, fmt.Errorf("%q is not a size: unknown unit %q (write for instance 512MiB, 10GiB)", text, suffix)
	}
	whole, fraction, dotted := strings.Cut(number, ".")
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size (write for instance 512MiB, 10GiB)", text)
	}
	high, total := bits.Mul64(n, factor)
	if high != 0 {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	if dotted {
		part, err := parseFraction(fraction, factor)
		if err != nil {
			return 0, fmt.Errorf("%q is not a size: %w", text, err)
		}
		var carry uint64
		if total, carry = bits.Add64(total, part, 0); carry != 0 {
			return 0, fmt.Errorf("size %q is too large", text)
		}
	}
	return Bytes(total), nil
}

// parseFraction returns 0.digits * factor, exactly.
func parseFraction(digits string, factor uint64) (uint64, error) {
	if len(digits) == 0 || len(digits) > 18 {
		return 0, fmt.Errorf("a fraction has 1 to 18 digits")
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("bad fraction")
	}
	divisor := uint64(1)
	for range digits {
		divisor *= 10
	}
	high, low := bits.Mul64(n, factor)
	// n < divisor, so the quotient fits.
	quotient, rest := bits.Div64(high, low, divisor)
	if rest != 0 {
		return 0, fmt.Errorf("it is not a whole number of bytes")
	}
	return quotient, nil
}

// String writes b exactly, with the largest unit of 1024 that divides it. Parse reads
// it back as the same number.
func (b Bytes) String() string {
	if b == 0 {
		return "0"
	}
	power := min(bits.TrailingZeros64(uint64(b))/10, len(letters))
	if power == 0 {
		return strconv.FormatUint(uint64(b), 10)
	}
	return fmt.Sprintf("%d%ciB", uint64(b)>>(10*power), letters[power-1])
}

// Human writes b for reading, rounded to about three digits: "1.46 GiB".
func (b Bytes) Human() string {
	if b < KiB {
		return fmt.Sprintf("%d B", uint64(b))
	}
	power := (bits.Len64(uint64(b)) - 1) / 10
	v := float64(b) / math.Pow(1024, float64(power))
	// 1023.9996 MiB is 1 GiB to a reader.
	if v > 1023.5 && power < len(letters) {
		v, power = v/1024, power+1
	}
	var text string
	switch {
	case v < 10:
		text = strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		text = strconv.FormatFloat(v, 'f', 1, 64)
	default:
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return fmt.Sprintf("%s %ciB", text, letters[power-1])
}

// Set implements pflag.Value.
func (b *Bytes) Set(text string) error {
	v, err := Parse(text)
	if err != nil {
		return err
	}
	*b = v
	return nil
}

// Type implements pflag.Value. It is the name of the value in the help.
func (b *Bytes) Type() string { return "size" }
