package field

import (
	"errors"
	"testing"
)

// Fields come in their order; the first one that is missing is the error of all that follow.
func TestReader(t *testing.T) {
	f := Reader{Rest: []byte{1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9}}
	if f.U8() != 1 || f.U16() != 2 || f.U32() != 3 || f.U64() != 4 || !f.Flag() || len(f.Take(2)) != 2 || f.End() != nil {
		t.Fatalf("%+v", f)
	}
	if f.U8() != 0 || f.U64() != 0 || f.Flag() || !errors.Is(f.End(), ErrMalformed) {
		t.Errorf("behind the end: %+v", f)
	}
	for name, bad := range map[string]func(f *Reader){
		"a flag of 2": func(f *Reader) { f.Flag() }, "bytes too many": func(f *Reader) { f.U8() }, "less than nothing": func(f *Reader) { f.Take(-1) },
	} {
		f := Reader{Rest: []byte{2, 0, 0}}
		if bad(&f); !errors.Is(f.End(), ErrMalformed) {
			t.Errorf("%s: %v", name, f.End())
		}
	}
	// What is taken cannot be appended to over what follows.
	f = Reader{Rest: []byte{1, 2}}
	if first := f.Take(1); cap(first) != 1 {
		t.Errorf("room for %d bytes", cap(first))
	}
}
