package trust

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/internal/format"
)

// FuzzRecord: whatever a record has, its decoder reads it and writes it again as it was,
// or says that it is damaged or newer.
func FuzzRecord(f *testing.F) {
	s := newSample(f)
	authority := authorityRecord{s.authority.cert, s.sealed}
	for _, b := range [][]byte{s.meta.encode(), s.host.encode(), s.cert.encode(), s.token.encode(), authority.encode()} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range decoders {
			again, err := decode(b)
			if err == nil && !bytes.Equal(again, b) {
				t.Errorf("%s: %x is written again as %x", name, b, again)
			}
			if err != nil && name != "authority" && !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func FuzzCacheFile(f *testing.F) {
	s := newSample(f)
	f.Add(s.snapshot.encodeAs(sampleID(0xc1), 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is behind the checksums, too: those keep a fuzzer out.
		if s, err := decodeCache(b, sampleID(0xc1)); err == nil && s == nil {
			t.Error("neither a snapshot nor an error")
		}
		if len(b) > format.HeaderSize+4 {
			if s, err := decodeSnapshot(b[format.HeaderSize : len(b)-4]); err == nil {
				again := s.encodeAs(sampleID(0xc1), 5)
				if !bytes.Equal(again[format.HeaderSize:len(again)-4], b[format.HeaderSize:len(b)-4]) {
					t.Error("it is written again in another way")
				}
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	s := newSample(f)
	f.Add(s.line.Line())
	f.Add(TokenPrefix)
	f.Fuzz(func(t *testing.T, line string) {
		k, err := ParseToken(line)
		if err != nil && !errors.Is(err, ErrToken) {
			t.Error(err)
		}
		if err == nil {
			if again, err := ParseToken(k.Line()); err != nil || again.Line() != k.Line() {
				t.Errorf("%q is written as %q, and that is not read: %v", line, k.Line(), err)
			}
		}
		if k, err := decodeTokenLine([]byte(line)); err == nil && k.check() != nil { // without the checksum
			t.Error("a token that is none")
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add((&JoinRequest{Host: sampleID(1), Names: []string{"a"}, Request: []byte{1}}).Encode())
	f.Add((&RenewRequest{Request: []byte{1}}).Encode())
	f.Add((&Answer{Certificate: []byte{1}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := DecodeJoinRequest(b); err == nil && !bytes.Equal(q.Encode(), b) {
			t.Error("a request to join is written again in another way")
		}
		if q, err := DecodeRenewRequest(b); err == nil && !bytes.Equal(q.Encode(), b) {
			t.Error("a request to renew is written again in another way")
		}
		a, err := DecodeAnswer(b)
		if err == nil && !bytes.Equal(a.Encode(), b) {
			t.Error("an answer is written again in another way")
		}
		if err == nil {
			key, err := NewKey()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = a.material(key)
		}
		_, _ = parseRequest(b)
	})
}

func FuzzMaterial(f *testing.F) {
	s := newSample(f)
	f.Add(encodeCertificate(s.authority.cert))
	f.Fuzz(func(t *testing.T, text []byte) {
		if m, err := ParseMaterial(text); err == nil && m.Key == nil {
			t.Error("a material without a key")
		}
	})
}

func FuzzIdentity(f *testing.F) {
	s := newSample(f)
	f.Add(s.cert.Identity.URI())
	f.Add(Identity{Cluster: sampleID(1), Host: sampleID(2), Roles: AllRoles}.URI())
	f.Fuzz(func(t *testing.T, uri string) {
		if id, err := ParseIdentity(uri); err == nil && (id.URI() != uri || id.Check() != nil) {
			t.Errorf("%q is %+v", uri, id)
		}
	})
}

// FuzzSealed: no bytes cost more than the most rounds, nor panic. Opening is not tried:
// it is slow on purpose.
func FuzzSealed(f *testing.F) {
	s := newSample(f)
	f.Add(s.sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkSealed(b); err != nil && !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
			t.Error(err)
		}
	})
}
