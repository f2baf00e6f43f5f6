package maintenance

import (
	"errors"
	"testing"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
)

// What the managers say of a namespace that has fragments decides what of it may be
// deleted: nothing unless both agree, and all of it only if both know that it was deleted.
func TestSettle(t *testing.T) {
	active := &nsm.Namespace{State: nsm.NamespaceActive, Epochs: nsm.Epochs{Minimum: 3, Next: 5}}
	removing := &nsm.Namespace{State: nsm.NamespaceRemoving, Epochs: nsm.Epochs{Minimum: 3, Next: 5}}
	rec := func(s abm.NamespaceState) *abm.Namespace { return &abm.Namespace{Number: 7, Name: "n", State: s} }
	for what, c := range map[string]struct {
		a     answers
		want  closed
		doubt bool
	}{
		"both have it":                          {answers{active, rec(abm.NamespaceActive), 9}, closed{minimum: 3}, false},
		"the ABM is creating it still":          {answers{active, rec(abm.NamespaceCreating), 9}, closed{minimum: 3}, false},
		"the ABM has deleted it, the NSM waits": {answers{active, rec(abm.NamespaceRemoving), 9}, closed{minimum: 3}, false},
		"the NSM is cleaning it up":             {answers{removing, rec(abm.NamespaceRemoving), 9}, closed{}, false},
		"cleaning up, and the ABM is done":      {answers{removing, nil, 9}, closed{}, false},
		"the ABM has lost it":                   {answers{active, nil, 9}, closed{}, true},
		"the NSM has lost it":                   {answers{nil, rec(abm.NamespaceActive), 9}, closed{}, true},
		"the NSM was not told of it yet":        {answers{nil, rec(abm.NamespaceCreating), 9}, closed{}, true},
		"the NSM is done, the ABM is not":       {answers{nil, rec(abm.NamespaceRemoving), 9}, closed{gone: true}, false},
		"both are done":                         {answers{nil, nil, 9}, closed{gone: true}, false},
		"the last number that was given away":   {answers{nil, nil, 8}, closed{gone: true}, false},
		"the ABM has not got that far":          {answers{nil, nil, 7}, closed{}, true},
		"an empty ABM":                          {answers{nil, nil, 0}, closed{}, true},
	} {
		got, doubt := settle(7, c.a)
		if got != c.want || (doubt != nil) != c.doubt || doubt != nil && !errors.Is(doubt, errDisagree) {
			t.Errorf("%s: %+v, %v", what, got, doubt)
		}
	}
}

// A patient collection deletes only what the one before it could have deleted too.
func TestClosedAtBoth(t *testing.T) {
	for _, c := range []struct{ now, before, want closed }{
		{closed{minimum: 5}, closed{minimum: 3}, closed{minimum: 3}},
		{closed{minimum: 5}, closed{}, closed{}}, // it was not known
		{closed{gone: true}, closed{}, closed{}},
		{closed{gone: true}, closed{minimum: 3}, closed{}},
		{closed{gone: true}, closed{gone: true}, closed{gone: true}},
	} {
		if got := c.now.both(c.before); got != c.want {
			t.Errorf("%+v after %+v: %+v", c.now, c.before, got)
		}
	}
}

// More orphans than killed processes leave are many objects and a share of all fragments.
func TestTooMany(t *testing.T) {
	for _, c := range []struct {
		orphans, objects, fragments int
		want                        bool
	}{
		{0, 0, 0, false},
		{1000, orphanObjects, 1000, false},
		{1000, orphanObjects + 1, 1000, true},
		{100, 100, 100 * orphanShare, false},
		{101, 100, 100 * orphanShare, true},
	} {
		if got := tooMany(c.orphans, c.objects, c.fragments); got != c.want {
			t.Errorf("%d orphans of %d objects, of %d fragments: %v", c.orphans, c.objects, c.fragments, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		first time.Duration
		tries int
		want  time.Duration
	}{
		{time.Second, 0, time.Second},
		{time.Second, 1, 2 * time.Second},
		{time.Second, 8, 256 * time.Second},
		{time.Second, 9, 5 * time.Minute},
		{time.Second, 1 << 20, 5 * time.Minute}, // nothing overflows
		{time.Hour, 0, 5 * time.Minute},
		{0, 5, 0}, // at once
	} {
		if got := backoff(c.first, 5*time.Minute, c.tries); got != c.want {
			t.Errorf("%v, %d failures more: %v", c.first, c.tries, got)
		}
	}
}

// A repair makes fragments first that nobody can read.
func TestUrgentFirst(t *testing.T) {
	list := []lostFragment{{0, true}, {3, false}, {1, true}, {2, false}}
	urgentFirst(list)
	want := []lostFragment{{2, false}, {3, false}, {0, true}, {1, true}}
	for i := range want {
		if list[i] != want[i] {
			t.Fatalf("%v", list)
		}
	}
}
