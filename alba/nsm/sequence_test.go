package nsm_test

import (
	"slices"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// A sequence is made whole or not at all, and the same one again is done.
func TestApply(t *testing.T) {
	s, c := host(t)
	if _, err := c.PutMany(ctx, 1, []nsm.Put{{Mode: nsm.Create, Object: object("a", 1, "one", 1, 2, 3)}, {Mode: nsm.Create, Object: object("b", 2, "two", 4, 5, 6)}}); err != nil {
		t.Fatal(err)
	}
	a, err := c.Get(ctx, 1, "a", userfn.Consistent)
	if err != nil {
		t.Fatal(err)
	}
	q := nsm.Sequence{
		Asserts: []nsm.Assert{{Kind: nsm.AssertExists, Name: "b"}, {Kind: nsm.AssertAbsent, Name: "c"}, {Kind: nsm.AssertID, Name: "a", ID: id(1)},
			{Kind: nsm.AssertHash, Name: "a", Hash: a.Hash}, {Kind: nsm.AssertVersion, Name: "a", Version: 1}, {Kind: nsm.AssertFixed, Name: "a", Version: 1}},
		Puts:    []nsm.Put{{Mode: nsm.Replace, Object: object("a", 3, "three", 4, 5, 6)}, {Mode: nsm.Create, Object: object("c", 4, "four")}},
		Deletes: []string{"b", "never there"},
	}
	for i, bad := range []nsm.Assert{{Kind: nsm.AssertExists, Name: "c"}, {Kind: nsm.AssertAbsent, Name: "a"}, {Kind: nsm.AssertID, Name: "a", ID: id(2)},
		{Kind: nsm.AssertHash, Name: "a"}, {Kind: nsm.AssertVersion, Name: "a", Version: 2}, {Kind: nsm.AssertFixed, Name: "a", Version: 1, Revision: 1}, {Kind: nsm.AssertID, Name: "c"}} {
		before := s.Dump()
		broken := q
		broken.Asserts = append(slices.Clone(q.Asserts), bad)
		_, err := c.Apply(ctx, 1, broken)
		want(t, "a false assertion", err, nsm.ErrAssert)
		if string(s.Dump()) != string(before) {
			t.Fatalf("assertion %d left something", i)
		}
	}
	for what, q := range map[string]nsm.Sequence{
		"a put of an id that is used": {Puts: []nsm.Put{q.Puts[0], {Mode: nsm.Create, Object: object("c", 2, "x")}}, Deletes: q.Deletes[1:]},
		"a name that is taken":        {Puts: []nsm.Put{q.Puts[0], {Mode: nsm.Create, Object: object("b", 5, "x")}}},
		"a name twice":                {Puts: q.Puts, Deletes: []string{"c"}},
		"no mode":                     {Puts: []nsm.Put{{Object: object("c", 5, "x")}}},
	} {
		before := s.Dump()
		if _, err := c.Apply(ctx, 1, q); err == nil || string(s.Dump()) != string(before) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range 2 { // its retry is not judged by what it made untrue
		r, err := c.Apply(ctx, 1, q)
		if err != nil || len(r) != 2 || r[0].Existed != (i == 1) || r[1].Version == 0 {
			t.Fatal(i, r, err)
		}
		check(t, s)
	}
	there, err := c.MultiExists(ctx, 1, []string{"a", "b", "c", "d"}, userfn.Consistent)
	if err != nil || !slices.Equal(there, []bool{true, false, true, false}) {
		t.Fatal(there, err)
	}
	if a, err = c.Get(ctx, 1, "a", userfn.Consistent); err != nil || a.ID != id(3) {
		t.Fatal(a, err)
	}
	// What it replaced and deleted is to be deleted on the disks.
	if dead, err := c.ListObsolete(ctx, 4, nil, 10, userfn.Consistent); err != nil || len(dead) != 1 || dead[0].ID != id(2) {
		t.Fatal(dead, err)
	}
	_, err = c.Apply(ctx, 1, nsm.Sequence{Asserts: []nsm.Assert{{Kind: nsm.AssertExists, Name: "b"}}, Deletes: []string{"b"}})
	want(t, "the retry of a delete alone", err, nsm.ErrAssert)
}
