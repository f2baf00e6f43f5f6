package arakoon

import (
	"fmt"
	"testing"
)

// The zone that has the majority is lost. The member in the other zone is recovered alone: all
// that was answered is there, however many writes were on their way. That the requirement ends
// is on record, and it can be asked for again.
func TestRecoverTheOtherZone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		c.require(c.leader(), 2, false)
		answered := map[string]bool{}
		done := make(chan string)
		const writers = 40
		for i := range writers {
			key := fmt.Sprint("key", i)
			n := c.leader()
			go func() {
				if _, err := n.Do(t.Context(), new(Sequence).Set([]byte(key), []byte("1"))); err != nil {
					key = ""
				}
				done <- key
			}()
		}
		for range writers / 2 {
			answered[<-done] = true
		}
		c.kill(1, killed)
		c.kill(2, killed)
		c.kill(3, killed)
		for range writers - writers/2 {
			<-done
		}
		s, err := Survey(c.options(3))
		if err != nil || s.Requirement.Zones != 2 || s.Requirement.Lowered > 0 {
			t.Fatalf("%+v, %v", s, err)
		}
		n := c.recovered(3, 2)
		for key := range answered {
			if key != "" {
				has(t, n, key, "1")
			}
		}
		if r := n.Requirement(); r.Zones != 1 || r.From != 2 || !r.Asserted || r.Lowered == 0 {
			t.Errorf("%+v", r)
		}
		set(t, n, "after", "1")
	})
}

// If the requirement was lowered before, the member in the other zone says so: what was answered
// since may be missing.
func TestRecoverAfterLowering(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		n := c.leaderInA()
		c.require(n, 2, false)
		lowered, err := n.RequireZones(t.Context(), 1, false)
		if err != nil {
			t.Fatal(err)
		}
		c.cutOff(3)
		set(t, n, "alone", "1")
		for id := range uint64(3) {
			c.kill(id+1, killed)
		}
		s, err := Survey(c.options(3))
		if r := s.Requirement; err != nil || r.Zones != 1 || r.Lowered != lowered || r.From != 2 {
			t.Fatalf("%+v, %v", s, err)
		}
	})
}
