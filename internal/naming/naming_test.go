package naming

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Which names Check gives, and which names CheckKept accepts for what has one already.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name       string
		give, have bool
	}{
		{"a", true, true},
		{"vm-1/root", true, true},
		{"été", true, true},
		{"a b", true, true},
		{" ", true, true},
		{"...", true, true},
		{".a", true, true},
		{"名前/盤", true, true},
		{"a\u3000b", true, true},
		{"e\u0301", true, true},
		{"💾", true, true},
		{"raw", true, true},
		{"a.RAW", true, true},
		{"a.rawx/b", true, true},
		{".snapshotsx", true, true},
		{"a-", true, true},
		{"–", true, true},
		{strings.Repeat("x", 255), true, true},
		{strings.Repeat("x/", 511) + "xx", true, true},

		{".snapshots", false, true},
		{".snapshots/a", false, true},
		{"a/.snapshots", false, true},
		{"a/.snapshots/b", false, true},
		{"a.raw/b", false, true},
		{"a.raw", false, true},
		{".raw", false, true},
		{"a/.raw", false, true},
		{"-x", false, true},
		{"-", false, true},
		{"a/-rf", false, true},
		{"--help/a", false, true},
		{"a\u202eb", false, true}, // right to left from here
		{"a\u2066b\u2069", false, true},
		{"a\u200bb", false, true},
		{"a\u200db", false, true},
		{"\ufeffa", false, true},
		{"a\u00ad", false, true},
		{"a\u034fb", false, true},
		{"\u3164", false, true},
		{"\u115f", false, true},
		{"a\ufe0f", false, true},
		{"a\U000e0041", false, true},
		{"a\u2028b", false, true},
		{"a\ue000", false, true},
		{"a\ufffdb", false, true},
		{"a\u0378", false, true},

		{"", false, false},
		{"/", false, false},
		{"/a", false, false},
		{"a/", false, false},
		{"a//b", false, false},
		{".", false, false},
		{"..", false, false},
		{"a/../b", false, false},
		{"a/.", false, false},
		{"a@b", false, false},
		{"a\nb", false, false},
		{"a\x00", false, false},
		{"a\x7f", false, false},
		{"a\u0085", false, false},
		{"\xff", false, false},
		{strings.Repeat("x", 256), false, false},
		{strings.Repeat("x/", 512) + "x", false, false},
	} {
		if err := Check(c.name); (err == nil) != c.give {
			t.Errorf("Check(%.40q): %v", c.name, err)
		}
		if err := CheckKept(c.name); (err == nil) != c.have {
			t.Errorf("CheckKept(%.40q): %v", c.name, err)
		}
	}
}

// A name that may be given may also be kept, and has only printable characters.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"a", "a/b.raw", "-x", "\u202e", ".snapshots/a", "名前"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if Check(name) != nil {
			return
		}
		if err := CheckKept(name); err != nil {
			t.Fatal(err)
		}
		if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			t.Fatalf("%q", name)
		}
		if strings.Contains("/"+name+"/", "/.snapshots/") || strings.Contains("/"+name, "/-") || strings.Contains(name+"/", ".raw/") {
			t.Fatalf("%q", name)
		}
	})
}
