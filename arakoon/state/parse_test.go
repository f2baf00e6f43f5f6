package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func stepsOfAllKinds() *Sequence {
	return new(Sequence).Set([]byte("a"), []byte("1")).Delete([]byte("b")).DeletePrefix([]byte("c")).Assert([]byte("d"), nil).
		AssertExists([]byte("e")).AssertRange([]byte("f"), []byte("f1"), []byte("f2")).TestAndSet([]byte("g"), nil, []byte("2")).
		Replace([]byte("h"), nil).Call("fn", 3, []byte("argument")).Call("other", 1, nil)
}

// A sequence that came from another process is the one that was made there, with what is
// asked of it before it is proposed.
func TestParseIsTheInverseOfEncode(t *testing.T) {
	made := stepsOfAllKinds()
	body, err := made.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	if got.Len() != made.Len() || !bytes.Equal(got.body, made.body) || len(got.calls) != 2 {
		t.Fatalf("%d steps, %d calls of %d", got.Len(), len(got.calls), made.Len())
	}
	for i, c := range got.calls {
		if c != made.calls[i] {
			t.Errorf("call %d is %+v, not %+v", i, c, made.calls[i])
		}
	}
}

// What a member would stop at when it applies it is refused.
func TestParseRefuses(t *testing.T) {
	whole, _ := stepsOfAllKinds().Encode()
	long := func(op byte, key, value int) []byte {
		b := appendBytes([]byte{op}, make([]byte, key))
		if op == opSet {
			return appendBytes(b, make([]byte, value))
		}
		return appendOption(b, make([]byte, value))
	}
	for name, tc := range map[string]struct {
		body []byte
		code uint32 // 0: corrupt
	}{
		"half a step":    {whole[:len(whole)-2], 0},
		"no option":      {append(appendBytes([]byte{opAssert}, nil), 7), 0},
		"key":            {long(opSet, KeyMax+1, 0), CodeTooLarge},
		"value":          {long(opSet, 1, ValueMax+1), CodeTooLarge},
		"wanted":         {long(opReplace, 1, ValueMax+1), CodeTooLarge},
		"prefix":         {binary.LittleEndian.AppendUint32(appendBytes([]byte{opAssertRange}, make([]byte, KeyMax+1)), 0), CodeTooLarge},
		"range cut":      {binary.LittleEndian.AppendUint32(appendBytes([]byte{opAssertRange}, nil), 1<<31), 0},
		"everything":     {make([]byte, CommandMax+1), CodeTooLarge},
		"length too far": {[]byte{opDelete, 0xff, 0xff, 0xff, 0xff}, 0},
	} {
		_, err := Parse(tc.body)
		var e *Error
		switch {
		case tc.code == 0 && !errors.Is(err, ErrCorrupt):
			t.Errorf("%s: %v", name, err)
		case tc.code != 0 && (!errors.As(err, &e) || e.Code != tc.code):
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(appendBytes([]byte{0xee}, nil)); !errors.Is(err, ErrNewer) {
		t.Errorf("a step of a newer release: %v", err)
	}
}

// Whatever is parsed can be read again as the applier reads it.
func FuzzParse(f *testing.F) {
	whole, _ := stepsOfAllKinds().Encode()
	f.Add(whole)
	f.Add(whole[:9])
	f.Fuzz(func(t *testing.T, body []byte) {
		seq, err := Parse(body)
		if err != nil {
			return
		}
		steps := 0
		for r := (&reader{b: body}); len(r.b) > 0; steps++ {
			readStep(r)
		}
		if steps != seq.Len() {
			t.Fatalf("%d steps, not %d", seq.Len(), steps)
		}
	})
}
