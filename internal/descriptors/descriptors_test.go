package descriptors

import (
	"strings"
	"testing"
)

func TestDivide(t *testing.T) {
	for _, c := range []struct{ limit, buffer, segments, clients, reserve, calls, scrapers int }{
		{256, 64, 64, 64, 64, 4, 8},
		{1024, 256, 256, 256, 256, 16, 32},
		{16384, 2048, 8192, 2048, 4096, 64, 64},
		{65536, 8192, 32768, 8192, 16384, 64, 64},
	} {
		b, err := Divide(c.limit)
		if want := (Budget{c.limit, c.buffer, c.segments, c.clients, c.reserve, c.calls, c.scrapers}); err != nil || b != want {
			t.Errorf("%d: %+v, %v; want %+v", c.limit, b, err, want)
		}
	}
	if _, err := Divide(255); err == nil || !strings.Contains(err.Error(), "255") || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("a limit of 255: %v", err)
	}
}

func TestRaise(t *testing.T) {
	n, err := Raise()
	if err != nil || n < 64 {
		t.Errorf("%d, %v", n, err)
	}
	if again, err := Raise(); err != nil || again != n {
		t.Errorf("raised twice: %d, then %d, %v", n, again, err)
	}
}
