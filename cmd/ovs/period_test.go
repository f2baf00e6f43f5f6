package main

import (
	"testing"
	"time"
)

func TestPeriod(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2w": 14 * 24 * time.Hour, "10d": 240 * time.Hour, "36h": 36 * time.Hour, "90m": 90 * time.Minute, "0": -1, "0d": -1,
	} {
		var p period
		if err := p.Set(text); err != nil || time.Duration(p) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(p), err)
		}
		var again period
		if err := again.Set(p.String()); err != nil || again != p {
			t.Errorf("%s is printed as %s: %v", text, &p, err)
		}
	}
	for _, text := range []string{"", "w", "-1h", "-2d", "1.5d", "2 w", "99999999w", "x", "1"} {
		var p period
		if err := p.Set(text); err == nil {
			t.Errorf("%q is %v", text, time.Duration(p))
		}
	}
}
