package image

import (
	"bytes"
	"testing"
)

// TestDataRuns: what is left out is zero, what is not is all there is.
func TestDataRuns(t *testing.T) {
	one := func(n int) []byte { return append(make([]byte, n-1), 1) }
	zero := func(n int) []byte { return make([]byte, n) }
	for _, c := range []struct {
		name string
		p    []byte
		runs []span
	}{
		{"nothing", nil, nil},
		{"zeros", zero(3 * clusterLen), nil},
		{"zeros cut short", zero(clusterLen + 5), nil},
		{"one cluster", one(clusterLen), []span{{0, clusterLen}}},
		{"a few bytes", one(5), []span{{0, 5}}},
		{"between zeros", bytes.Join([][]byte{zero(clusterLen), one(clusterLen), one(clusterLen), zero(7)}, nil), []span{{clusterLen, 2 * clusterLen}}},
		{"two runs", bytes.Join([][]byte{one(clusterLen), zero(2 * clusterLen), one(9)}, nil), []span{{0, clusterLen}, {3 * clusterLen, 9}}},
	} {
		var runs []span
		got := make([]byte, len(c.p))
		for at, run := range dataRuns(c.p) {
			runs = append(runs, span{int64(at), int64(len(run))})
			copy(got[at:], run)
		}
		if !bytes.Equal(got, c.p) {
			t.Errorf("%s: other bytes", c.name)
		}
		if len(runs) != len(c.runs) {
			t.Errorf("%s: runs %v, want %v", c.name, runs, c.runs)
			continue
		}
		for i := range runs {
			if runs[i] != c.runs[i] {
				t.Errorf("%s: runs %v, want %v", c.name, runs, c.runs)
			}
		}
	}
}

// TestStream: an image on what cannot be sought gets every byte.
func TestStream(t *testing.T) {
	var out bytes.Buffer
	s := NewStream(&out)
	for _, c := range []struct {
		off  int64
		data string
	}{{3, "abc"}, {6, "d"}, {pieceSize * 2, "e"}} {
		if err := s.put(c.off, []byte(c.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.end(2*pieceSize + 10); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 2*pieceSize+10)
	copy(want[3:], "abcd")
	want[2*pieceSize] = 'e'
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, want %d", out.Len(), len(want))
	}
}
