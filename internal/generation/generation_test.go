package generation

import (
	"errors"
	"testing"

	"openvstorage/internal/format"
)

// Three starts claimed 1-3, 4 and 5-9.
var line = History{{1, 100}, {4, 400}, {5, 500}}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		h    History
		m    Mark
		want Verdict
	}{
		{"has seen nothing", line, Mark{}, Ours},
		{"first of a start", line, Mark{4, 400}, Ours},
		{"later of a start", line, Mark{3, 100}, Ours},
		{"newest", line, Mark{9, 500}, Ours},
		{"newer", line, Mark{10, 500}, Newer},
		{"newer, of another line", line, Mark{10, 7}, Newer},
		{"same number, of another line", line, Mark{9, 7}, Foreign},
		{"older, of another line", line, Mark{2, 7}, Foreign},
		{"of a later start than its number says", line, Mark{4, 500}, Foreign},
		{"older than the history", line[1:], Mark{3, 7}, Ours},
		{"no history", nil, Mark{9, 7}, Ours},
	} {
		if got := c.h.Judge(9, c.m); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAddKeepsTheNewest(t *testing.T) {
	var h History
	for i := range uint64(HistoryMax + 20) {
		before := h
		h = h.Add(Mark{i + 1, i})
		if len(before) > 0 && &before[0] == &h[0] {
			t.Fatal("Add changed what somebody else may hold")
		}
	}
	if len(h) != HistoryMax || h[0].Number != 21 || h[HistoryMax-1].Number != HistoryMax+20 {
		t.Errorf("%d starts, %v to %v", len(h), h[0], h[len(h)-1])
	}
}

func TestCodec(t *testing.T) {
	m := Mark{0x0102030405060708, 9}
	b := m.Append(nil)
	if got, err := Decode(b); err != nil || got != m || b[0] != 8 || b[8] != 9 {
		t.Errorf("%x decodes to %v, %v", b, got, err)
	}
	if _, err := Decode(b[:15]); err == nil {
		t.Error("15 bytes are a mark")
	}
	if _, err := Decode(append(b, 0)); !errors.Is(err, format.ErrNewer) {
		t.Errorf("17 bytes: %v", err)
	}
}
