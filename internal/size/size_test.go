package size

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want Bytes
	}{
		{"0", 0}, {"4096", 4096}, {"4096B", 4096}, {"1k", KiB}, {"1K", KiB}, {"64KiB", 64 * KiB}, {"64kib", 64 * KiB},
		{"10GiB", 10 * GiB}, {"10G", 10 * GiB}, {" 10 GiB ", 10 * GiB}, {"10GB", 10_000_000_000}, {"1.5GiB", 3 * GiB / 2},
		{"0.5K", 512}, {"2TiB", 2 * TiB}, {"1PiB", PiB}, {"15EiB", 15 * EiB}, {"18446744073709551615", 1<<64 - 1},
	} {
		got, err := Parse(c.text)
		if err != nil || got != c.want {
			t.Errorf("Parse(%q) = %d, %v; want %d", c.text, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"", "not a size"}, {"GiB", "not a size"}, {"-1", `unknown unit`}, {"10XiB", `unknown unit "XiB"`}, {"10Ki", "unknown unit"},
		{"16EiB", "too large"}, {"18446744073709551616", "not a size"}, {"0.3", "whole number"}, {"1.", "fraction"},
		{".5G", "not a size"}, {"1.2.3G", "bad fraction"}, {"15.9999999999999999999E", "fraction"}, {"1e3", "not a size"},
		{"--5", "not a size"}, {"+5", "not a size"}, {"0x10", "not a size"},
	} {
		_, err := Parse(c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) && !strings.Contains(err.Error(), "not a size") {
			t.Errorf("Parse(%q): error %v; want one that says %q", c.text, err, c.says)
		}
	}
}

func TestHuman(t *testing.T) {
	for _, c := range []struct {
		b    Bytes
		want string
	}{
		{0, "0 B"}, {1023, "1023 B"}, {KiB, "1 KiB"}, {1536, "1.5 KiB"}, {10 * GiB, "10 GiB"}, {MiB - 1, "1 MiB"},
		{GiB + 470*MiB, "1.46 GiB"}, {100 * MiB, "100 MiB"}, {1<<64 - 1, "16 EiB"}, {1000 * MiB, "1000 MiB"},
	} {
		if got := c.b.Human(); got != c.want {
			t.Errorf("Human(%d) = %q; want %q", uint64(c.b), got, c.want)
		}
	}
}

// FuzzParse: no text makes Parse panic, and String reads back as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"10GiB", "1.5T", "9.999999999999999999E", "B", "1..", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(b.String()); err != nil || again != b {
			t.Fatalf("Parse(%q) = %d, whose String %q reads back as %d, %v", s, uint64(b), b.String(), uint64(again), err)
		}
		b.Human()
	})
}
