package volumedriver

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const idleAfter, slots = 30 * time.Second, 4
	for _, c := range []struct {
		name     string
		fill     float64
		idle     time.Duration
		urgent   bool
		parallel int
		rest     time.Duration
	}{
		{"a buffer with room, in use", 0.2, time.Second, false, 0, 0},
		{"the same, at rest", 0.2, idleAfter, false, 1, 20 * time.Millisecond},
		{"somebody waits", 0.01, 0, true, slots, 0},
		{"it begins to fill", paceLow, 0, false, 1, 200 * time.Millisecond},
		{"half way", 0.5, 0, false, 2, 50 * time.Millisecond},
		{"nearly full", paceHigh, 0, false, slots, 0},
		{"full", 1, 0, false, slots, 0},
	} {
		parallel, rest := pace(c.fill, c.idle, idleAfter, c.urgent, slots)
		if parallel != c.parallel || rest != c.rest {
			t.Errorf("%s: %d side by side, a rest of %v; not %d, %v", c.name, parallel, rest, c.parallel, c.rest)
		}
	}
}

func TestEarly(t *testing.T) {
	for _, c := range []struct {
		name          string
		fill          float64
		written, live int64
		early         bool
	}{
		{"nothing is written twice", paceLow, 100, 100, false},
		{"little room is used", 0.2, 100, 100, true},
		{"a fifth is dead, a third of the buffer full", 0.33, 100, 80, true},
		{"a fifth is dead, more is full", 0.36, 100, 80, false},
		{"most is dead, half full", 0.5, 100, 20, true},
		{"most is dead, two thirds full", 0.66, 100, 20, false},
		{"all is dead, nearly full", paceHigh, 100, 0, false},
		{"nothing but trims", paceLow, 0, 0, false},
		{"more seems to live than there is", paceLow, 100, 120, false},
	} {
		if got := early(c.fill, c.written, c.live); got != c.early {
			t.Errorf("%s: early is %v", c.name, got)
		}
	}
}
