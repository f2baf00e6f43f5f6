package faults

import (
	"context"
	"errors"
	"testing"

	"openvstorage/internal/gate"
)

// The first rule that matches and hits decides. A call that a rule skips goes to the
// next rule.
func TestRules(t *testing.T) {
	var rules Rules[string]
	if got := rules.Hit(func(*string) bool { return true }); got != "" {
		t.Error(got)
	}
	first := rules.Add("a", 1, 2)
	second := rules.Add("b", 0, 0)
	for i, want := range []string{"b", "a", "a", "b"} {
		if got := rules.Hit(func(*string) bool { return true }); got != want {
			t.Errorf("call %d: %q, want %q", i, got, want)
		}
	}
	if first.Hits() != 2 || second.Hits() != 2 {
		t.Error(first.Hits(), second.Hits())
	}
	second.Remove()
	if got := rules.Hit(func(r *string) bool { return *r == "b" }); got != "" {
		t.Error("a rule that was removed hits")
	}
}

func TestEffect(t *testing.T) {
	broken, own := errors.New("broken"), errors.New("own")
	for _, c := range []struct {
		effect    Effect
		call      error
		want      error
		wantCalls int
	}{
		{Effect{}, nil, nil, 1},
		{Effect{}, own, own, 1},
		{Effect{Err: broken}, nil, broken, 0},
		{Effect{Err: broken, After: true}, nil, broken, 1},
		{Effect{Err: broken, After: true}, own, own, 1},
	} {
		calls := 0
		err := c.effect.Around(t.Context(), func() error { calls++; return c.call })
		if err != c.want || calls != c.wantCalls {
			t.Errorf("%+v: %v after %d calls", c, err, calls)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	held := Effect{Gate: gate.New()}
	if err := held.Around(ctx, func() error { t.Error("called"); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
