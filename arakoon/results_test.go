package arakoon

import (
	"errors"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
)

// manyValues is a sequence that returns more than any may, as "large" has the longest value.
func manyValues() *Sequence {
	seq := new(Sequence).Set([]byte("written"), []byte("v"))
	for range state.ResultsMax/state.ValueMax + 1 {
		seq.TestAndSet([]byte("large"), []byte("another"), nil)
	}
	return seq
}

// In a group of one a sequence that returns too much fails, and brings the group to the level
// at which all members agree on that.
func TestResultsInAGroupOfOne(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	set(t, n, "large", string(make([]byte, state.ValueMax)))
	if n.Level() != state.LevelFirst {
		t.Fatal(n.Level())
	}
	for range 2 {
		_, _, err := n.Write(t.Context(), manyValues())
		if !errors.Is(err, &Error{Code: state.CodeTooLarge}) {
			t.Fatal(err)
		}
	}
	if found, err := n.Exists(t.Context(), Local, []byte("written")); found || err != nil || n.Level() != state.LevelBounded {
		t.Error(found, err, n.Level())
	}
}

// In a group of several that is at the first level it is refused before it is proposed; but
// not in a session, where it may be the retry of one that was done.
func TestResultsInAGroupOfSeveral(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		set(t, n, "large", string(make([]byte, state.ValueMax)))
		before := n.Applied()
		if _, _, err := n.Write(t.Context(), manyValues()); !errors.Is(err, &Error{Code: state.CodeTooLarge}) || n.Applied() != before {
			t.Fatal(err, before, n.Applied())
		}
		s, err := n.NewSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, results, err := s.Do(t.Context(), manyValues()); err != nil || len(results) != manyValues().Len() || n.Level() != state.LevelFirst {
			t.Error(len(results), err, n.Level())
		}
	})
}
