// Package golden is a file of bytes that must never change: a sample of a
// format in testdata, as hexadecimal with the name of every field. Tests use it
// to show that what an old release wrote still opens.
package golden

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write golden files that are absent; those that are there never change")

// Field names the next Size bytes of a sample.
type Field struct {
	Size int
	Name string
}

// Check compares what is written today with the golden file and returns the
// file's bytes. fields describe sample from its start; what they leave over is
// an error.
func Check(t testing.TB, file, title string, sample []byte, fields ...Field) []byte {
	t.Helper()
	if *rewrite {
		if _, err := os.Stat(file); err != nil {
			if err := os.WriteFile(file, Annotate(t, title, sample, fields), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := Read(t, file)
	if !bytes.Equal(b, sample) {
		t.Errorf("%s: today's release writes other bytes", file)
	}
	return b
}

// CheckText is Check for samples that are text already, and returns the file's.
func CheckText(t testing.TB, file string, sample []byte) []byte {
	t.Helper()
	if *rewrite {
		if _, err := os.Stat(file); err != nil {
			if err := os.WriteFile(file, sample, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, sample) {
		t.Errorf("%s: today's release writes otherwise:\n%s", file, sample)
	}
	return b
}

// Annotate returns b as text: a comment with the title, then the fields, 16
// bytes a line, a run of equal bytes as XX*N.
func Annotate(t testing.TB, title string, b []byte, fields []Field) []byte {
	t.Helper()
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n", title)
	for _, f := range fields {
		if f.Size > len(b) {
			t.Fatalf("field %q takes %d bytes and %d are left", f.Name, f.Size, len(b))
		}
		name := f.Name
		for part := b[:f.Size]; len(part) > 0; name = "" {
			n, text := line(part)
			if part = part[n:]; name == "" {
				fmt.Fprintln(&out, text)
			} else {
				fmt.Fprintf(&out, "%-48s # %s\n", text, name)
			}
		}
		b = b[f.Size:]
	}
	if len(b) != 0 {
		t.Fatalf("%d bytes are no field's", len(b))
	}
	return out.Bytes()
}

// line returns the text of the first n bytes of b.
func line(b []byte) (n int, text string) {
	for n < len(b) && b[n] == b[0] {
		n++
	}
	if n > 16 {
		return n, fmt.Sprintf("%02x*%d", b[0], n)
	}
	n = min(len(b), 16)
	return n, fmt.Sprintf("% x", b[:n])
}

// Read reads what Annotate wrote.
func Read(t testing.TB, file string) (b []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		l, _, _ = strings.Cut(l, "#")
		for word := range strings.FieldsSeq(l) {
			value, times, many := strings.Cut(word, "*")
			n := 1
			if many {
				n, err = strconv.Atoi(times)
			}
			part, herr := hex.DecodeString(value)
			if err != nil || herr != nil {
				t.Fatalf("%s: %q is no hexadecimal", file, word)
			}
			b = append(b, bytes.Repeat(part, n)...)
		}
	}
	return b
}
