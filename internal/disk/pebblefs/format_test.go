package pebblefs

import "testing"

// The number is on disk, in every store of every user.
func TestFormatIsPinned(t *testing.T) {
	if Format != 24 {
		t.Errorf("stores of Pebble have format %d; the release before opens 24", Format)
	}
}
