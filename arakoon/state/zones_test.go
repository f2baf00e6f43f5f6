package state

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format/golden"
)

// The requirement is the same after a restart and in a backup, knows when it was lowered, and
// an entry that sets it is found in the log before it is applied.
func TestRequirement(t *testing.T) {
	d := crashdisk.New()
	s := open(t, d)
	is := func(want Requirement) {
		t.Helper()
		got, at := s.Requirement()
		if got != want || at != s.Applied().Index {
			t.Fatalf("%+v at %d, and not %+v", got, at, want)
		}
	}
	is(Requirement{})
	does(t, s, Raise(LevelZones, true), 0)
	first := does(t, s, Require(2, false), 0)
	is(Requirement{Zones: 2, Since: first.Index})
	if o := does(t, s, Require(2, true), 0); !o.Results[0].Found || o.Results[0].Count != first.Index {
		t.Errorf("what there is already was set anew: %+v", o)
	}
	lowered := does(t, s, Require(1, true), 0).Index
	want := Requirement{Zones: 1, Since: lowered, Lowered: lowered, From: 2, Asserted: true}
	is(want)
	raised := does(t, s, Require(3, false), 0).Index
	want.Zones, want.Since = 3, raised
	is(want)
	if o := does(t, s, &Sequence{body: new(Sequence).Delete([]byte("none")).body, steps: 1}, CodeNotFound); o.Err == nil {
		t.Error(o)
	}
	is(want)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.Kill())
	is(want)
	again := does(t, s, Require(2, false), 0).Index
	is(Requirement{Zones: 2, Since: again, Lowered: again, From: 3})
	for _, bad := range []int{0, -1, ZonesMax + 1} {
		if _, err := Require(bad, false).Encode(); err == nil {
			t.Errorf("%d zones", bad)
		}
	}
	does(t, s, &Sequence{body: appendFlag(appendU32(appendBytes([]byte{opRequire}, nil), ZonesMax+1), false), steps: 1}, CodeBadCommand)
	if _, err := Parse(body(t, Require(1, false))); err == nil {
		t.Error("a client may lower it")
	}
}

func TestRequiredBy(t *testing.T) {
	with := func(list ...*Sequence) []byte {
		b := Batch{Origin: 1, Number: 2}
		for _, s := range list {
			b.Commands = append(b.Commands, Command{Body: body(t, s)})
		}
		return AppendBatch(nil, b)
	}
	if zones, asserted, ok := RequiredBy(with(Require(3, true))); zones != 3 || !asserted || !ok {
		t.Error(zones, asserted, ok)
	}
	for _, data := range [][]byte{nil, with(), with(new(Sequence).Set([]byte("a"), nil)), with(Require(2, false))[:entryHead+commandHead+2]} {
		if zones, _, ok := RequiredBy(data); ok {
			t.Errorf("%d zones by %x", zones, data)
		}
	}
	if !(Command{Body: body(t, Require(2, false))}).Requires() || (Command{Body: body(t, Mark())}).Requires() || (Command{Open: true}).Requires() {
		t.Error("which command must be alone")
	}
}

func TestGoldenRequirement(t *testing.T) {
	step := body(t, Require(2, true))
	r := Requirement{Zones: 1, Since: 9, Lowered: 8, From: 2, Asserted: true}
	value := appendRequirement(nil, r)
	b := golden.Check(t, "testdata/zones.hex", "a requirement of zones: the step, and the value", bytes.Join([][]byte{step, value}, nil),
		golden.Field{Size: len(step), Name: "step"}, golden.Field{Size: len(value), Name: "value"})
	if s, err := readStep(&reader{b: b[:len(step)]}); err != nil || s.number != 2 || !s.asserted {
		t.Error(s, err)
	}
	if got, err := decodeRequirement(b[len(step):]); err != nil || got != r {
		t.Error(got, err)
	}
	for i := range value {
		if _, err := decodeRequirement(value[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
}

func FuzzRequirement(f *testing.F) {
	f.Add(appendRequirement(nil, Requirement{Zones: 2, Since: 7}))
	f.Add(appendRequirement(nil, Requirement{Zones: 1, Since: 9, Lowered: 9, From: 2, Asserted: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRequirement(b); err == nil && !bytes.Equal(appendRequirement(nil, r), b) {
			t.Errorf("%x is read, and written as %x", b, appendRequirement(nil, r))
		}
		RequiredBy(b)
	})
}
