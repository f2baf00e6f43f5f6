package golden

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestReadBack(t *testing.T) {
	sample := append([]byte("a sample of more than sixteen bytes"), make([]byte, 4000)...)
	sample = append(sample, 7)
	text := Annotate(t, "sample", sample, []Field{{35, "words"}, {4000, "zero"}, {1, "end"}})
	file := filepath.Join(t.TempDir(), "sample.hex")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Read(t, file), sample) {
		t.Errorf("not read back:\n%s", text)
	}
	if !bytes.Contains(text, []byte("00*4000")) {
		t.Errorf("a run is not short:\n%s", text)
	}
}
