package tlog

import "errors"

// Scan calls fn for each entry of a whole TLog (header included) in order
// and returns the header, the offset behind the last good entry, and whether a
// seal ends the file. A torn or foreign entry ends the scan without an error:
// in a file that was never synced that is how a log ends. Whether it may end
// there is for the caller to judge (rule O2). Errors are those of a bad header,
// of an entry that a newer release wrote, and of fn.
func Scan(b []byte, fn func(off int64, e Entry) error) (h Header, end int64, sealed bool, err error) {
	h, err = DecodeHeader(b)
	if err != nil {
		return h, 0, false, err
	}
	seed := SeedOf(h.Incarnation)
	at := HeaderSize
	for at < len(b) {
		e, n, err := Decode(b[at:], seed)
		if errors.Is(err, ErrNewer) {
			return h, int64(at), false, err
		}
		if err != nil {
			break
		}
		if err := fn(int64(at), e); err != nil {
			return h, int64(at), false, err
		}
		at += n
		if e.Kind == KindSeal {
			return h, int64(at), true, nil
		}
	}
	return h, int64(at), false, nil
}

// ScanCovered calls fn for each of the entries that a commit block covers.
func ScanCovered(b []byte, fn func(Entry) error) error {
	for len(b) > 0 {
		e, n, err := DecodeCovered(b)
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
