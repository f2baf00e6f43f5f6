package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
	"openvstorage/trust/internal/cost"
)

// sample has one value of each format, with nothing in it that is drawn.
type sample struct {
	authority *Authority
	sealed    []byte
	meta      meta
	host      Host
	cert      Certificate
	token     TokenRecord
	line      Token
	snapshot  snapshot
}

func sampleID(n byte) uuid.UUID {
	return uuid.UUID{n, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
}

func newSample(t testing.TB) *sample {
	t.Helper()
	text, err := os.ReadFile("testdata/authority.pem")
	if err != nil {
		t.Fatal(err)
	}
	_, key := pem.Decode(text)
	at := time.Unix(1796040000, 0).UTC()
	a, err := ImportAuthority(text, key, at)
	if err != nil {
		t.Fatal(err)
	}
	s := &sample{authority: a}
	s.sealed, err = seal([]byte("thirty-two bytes that are no key"), Fingerprint{9}, []byte("correct horse"), cost.Min, [16]byte{1, 2}, [12]byte{3, 4})
	if err != nil {
		t.Fatal(err)
	}
	cluster, serial := sampleID(0xc1), Serial{0x41, 15: 7}
	s.meta = meta{number: 77, draw: 0x0102030405060708, cluster: cluster, hosts: 2, certs: 3, tokens: 1}
	s.host = Host{
		ID: sampleID(0xa1), State: Joined, Roles: RoleASD | RoleArakoon, Joined: at, Changed: at.Add(time.Hour),
		Names: []string{"10.0.0.1", "host-1.example"}, Serials: []Serial{serial},
	}
	s.cert = Certificate{
		Serial: serial, Fingerprint: Fingerprint{1, 2, 3}, By: sampleID(0xa1),
		Identity: Identity{Cluster: cluster, Name: "backup", Role: NBD, VDisks: "team a/*", ReadOnly: true},
		From:     at.Add(-Backdate), Until: at.Add(HostLife), Signed: at, Revoked: at.Add(time.Minute), Reason: "left",
	}
	s.token = TokenRecord{Hash: Secret{5}.hash(), Roles: AllRoles, Made: at, Expires: at.Add(TokenLife), By: "root", UsedBy: sampleID(0xa1), usedKey: Fingerprint{8}}
	s.line = Token{Cluster: cluster, Authority: Fingerprint{1, 2, 3}, Addresses: []string{"10.0.0.1:26400", "[fd00::1]:26400"}, Roles: AllRoles, Expires: at, Secret: Secret{5}}
	s.snapshot = snapshot{meta: s.meta.encode(), high: 80, hosts: map[uuid.UUID]Host{s.host.ID: s.host}, certs: map[Serial]Certificate{serial: s.cert}}
	return s
}

func TestGolden(t *testing.T) {
	s := newSample(t)
	b := golden.Check(t, "testdata/sealed-v1.hex", "The authority's key, sealed", s.sealed,
		golden.Field{Size: 8, Name: "magic"}, golden.Field{Size: 1, Name: "version"}, golden.Field{Size: 1, Name: "derivation"}, golden.Field{Size: 1, Name: "cipher"},
		golden.Field{Size: 1, Name: "zero"}, golden.Field{Size: 4, Name: "rounds"}, golden.Field{Size: 16, Name: "salt"}, golden.Field{Size: 12, Name: "nonce"},
		golden.Field{Size: 4, Name: "length"}, golden.Field{Size: 48, Name: "sealed"})
	if err := checkSealed(b); err != nil {
		t.Error(err)
	}
	aead, err := sealCipher([]byte("correct horse"), b[16:32], binary.LittleEndian.Uint32(b[12:]))
	if err != nil {
		t.Fatal(err)
	}
	ca := Fingerprint{9}
	if der, err := aead.Open(nil, b[32:44], b[48:], append(bytes.Clone(b[:48]), ca[:]...)); err != nil || string(der) != "thirty-two bytes that are no key" {
		t.Errorf("it opens to %q, %v", der, err)
	}

	whole := func(name string, b []byte) []byte {
		t.Helper()
		return golden.Check(t, "testdata/"+name+"-v1.hex", "A record of package trust: "+name, b, golden.Field{Size: recordHead, Name: "version, kind, flags, features"}, golden.Field{Size: len(b) - recordHead, Name: "fields, see records.go"})
	}
	if got, err := decodeMeta(whole("meta", s.meta.encode())); err != nil || got != s.meta {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := decodeHost(whole("host", s.host.encode())); err != nil || !bytes.Equal(got.encode(), s.host.encode()) || got.Names[1] != "host-1.example" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := decodeCertificate(whole("certificate", s.cert.encode())); err != nil || got != s.cert {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := decodeToken(whole("token", s.token.encode())); err != nil || got != s.token {
		t.Errorf("%+v, %v", got, err)
	}
	authority := authorityRecord{s.authority.cert, s.sealed}
	if got, err := decodeAuthority(whole("authority", authority.encode())); err != nil || !got.cert.Equal(authority.cert) || !bytes.Equal(got.sealed, s.sealed) {
		t.Errorf("%+v, %v", got, err)
	}
	line := golden.CheckText(t, "testdata/token-line-v1.txt", []byte(s.line.Line()+"\n"))
	if got, err := ParseToken(string(line)); err != nil || got.Line() != s.line.Line() || got.Secret != s.line.Secret {
		t.Errorf("%+v, %v", got, err)
	}
	file := s.snapshot.encodeAs(sampleID(0xc1), 0x1122334455667788)
	file = golden.Check(t, "testdata/cache-v1.hex", "The cache of records", file, golden.Field{Size: 64, Name: "common header"}, golden.Field{Size: len(file) - 68, Name: "meta, hosts, certificates"}, golden.Field{Size: 4, Name: "CRC"})
	if got, err := decodeCache(file, sampleID(0xc1)); err != nil || got.high != 80 || len(got.hosts) != 1 || len(got.certs) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestGoldenMessages(t *testing.T) {
	join := &JoinRequest{Host: sampleID(0xa2), Secret: Secret{5}, Names: []string{"10.0.0.2"}, Request: []byte{1, 2, 3}}
	renew := &RenewRequest{Names: []string{"10.0.0.2"}, Request: []byte{1, 2, 3}}
	answer := &Answer{Certificate: []byte{4, 5}, Authority: []byte{6}}
	check := func(name string, b []byte) []byte {
		t.Helper()
		return golden.Check(t, "testdata/"+name+"-v1.hex", "A message: "+name, b, golden.Field{Size: 2, Name: "version, kind"}, golden.Field{Size: len(b) - 2, Name: "fields, see exchange.go"})
	}
	if got, err := DecodeJoinRequest(check("join", join.Encode())); err != nil || !bytes.Equal(got.Encode(), join.Encode()) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DecodeRenewRequest(check("renew", renew.Encode())); err != nil || !bytes.Equal(got.Encode(), renew.Encode()) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DecodeAnswer(check("answer", answer.Encode())); err != nil || !bytes.Equal(got.Encode(), answer.Encode()) {
		t.Errorf("%+v, %v", got, err)
	}
}

// decoders are all decoders of records, by name.
var decoders = map[string]func([]byte) ([]byte, error){
	"meta":        func(b []byte) ([]byte, error) { m, err := decodeMeta(b); return m.encode(), err },
	"host":        func(b []byte) ([]byte, error) { h, err := decodeHost(b); return h.encode(), err },
	"certificate": func(b []byte) ([]byte, error) { r, err := decodeCertificate(b); return r.encode(), err },
	"token":       func(b []byte) ([]byte, error) { r, err := decodeToken(b); return r.encode(), err },
	"authority": func(b []byte) ([]byte, error) {
		a, err := decodeAuthority(b)
		if err != nil {
			return nil, err
		}
		return a.encode(), nil
	},
}

func TestUnknown(t *testing.T) {
	s := newSample(t)
	patch := func(b []byte, at int, v byte) []byte { b = bytes.Clone(b); b[at] = v; return b }
	read := func(name string, b []byte, says string) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decoders[name](b); return err }}
	}
	host := s.host.encode()
	uri := []byte(s.cert.Identity.URI())
	cert := s.cert.encode()
	role := bytes.Replace(cert, uri, bytes.Replace(uri, []byte("role=nbd"), []byte("role=abc"), 1), 1)
	unknown.Walk(t, "Records of trust", map[string]unknown.Case{
		"a later version":              read("meta", patch(s.meta.encode(), 0, 2), "version 2"),
		"a flag":                       read("token", patch(s.token.encode(), 2, 1), "flags 0x1"),
		"an incompatible feature":      read("certificate", patch(cert, 4, 4), "features 0x4"),
		"a field behind the last":      read("host", append(bytes.Clone(host), 0), "1 bytes behind"),
		"a state of a host":            read("host", patch(host, recordHead+16, 3), "state 3"),
		"a role of a host":             read("host", patch(host, recordHead+20, 1), "roles 0x10"),
		"a role of a token":            read("token", patch(s.token.encode(), recordHead+35, 1), "roles 0x10"),
		"a role of a person":           read("certificate", role, `role "abc"`),
		"a derivation of a sealed key": {Says: "derivation 2", Read: func() error { return checkSealed(patch(s.sealed, 9, 2)) }},
		"a cipher of a sealed key":     {Says: "cipher 2", Read: func() error { return checkSealed(patch(s.sealed, 10, 2)) }},
		"a version of a sealed key":    {Says: "version 2", Read: func() error { return checkSealed(patch(s.sealed, 8, 2)) }},
		"a field of a sealed key":      {Says: "behind the cipher", Read: func() error { return checkSealed(patch(s.sealed, 11, 2)) }},
	})
	file := s.snapshot.encodeAs(sampleID(0xc1), 5)
	header := func(at int, v byte) unknown.Case {
		return unknown.Case{Read: func() error {
			b := patch(file, at, v)
			binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
			_, err := decodeCache(b, sampleID(0xc1))
			return err
		}}
	}
	unknown.Walk(t, "Cache of the records of trust", map[string]unknown.Case{
		"a later version, which this one may read": header(10, 2),
		"a later minimum reader":                   header(12, 2),
		"a compatible feature":                     header(16, 1),
		"an incompatible feature":                  header(20, 1),
		"a field in the header":                    header(56, 1),
	})
	line := func(b []byte, says string) unknown.Case {
		return unknown.Case{Says: says, Read: func() error {
			b = binary.LittleEndian.AppendUint32(b[:len(b)-4], format.CRC(b[:len(b)-4]))
			_, err := ParseToken(TokenPrefix + base64.RawURLEncoding.EncodeToString(b))
			return err
		}}
	}
	raw, err := base64.RawURLEncoding.DecodeString(s.line.Line()[len(TokenPrefix):])
	if err != nil {
		t.Fatal(err)
	}
	unknown.Walk(t, "Join token", map[string]unknown.Case{
		"a later version": line(patch(raw, 0, 2), "version 2"),
		"a role":          line(patch(raw, 4, 1), "roles 0x10"),
		"a field":         line(append(bytes.Clone(raw), 0), "1 bytes behind"),
	})
}

func TestTokenLine(t *testing.T) {
	s := newSample(t)
	line := s.line.Line()
	for i := range len(line) {
		b := []byte(line)
		if b[i]++; b[i] == line[i] {
			continue
		}
		if _, err := ParseToken(string(b)); !errors.Is(err, ErrToken) {
			t.Errorf("character %d changed: %v", i, err)
		}
		if _, err := ParseToken(line[:i]); !errors.Is(err, ErrToken) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for _, addresses := range [][]string{nil, {"10.0.0.1"}, {"10.0.0.1:0"}, {"10.0.0.1:x"}, {":26400"}, {"a b:1"}, make([]string, TokenAddresses+1)} {
		if err := checkAddresses(addresses); !errors.Is(err, ErrInvalid) {
			t.Errorf("addresses %q: %v", addresses, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	c := sampleID(0xc1)
	for _, id := range []Identity{
		{Cluster: c, Host: sampleID(1), Roles: AllRoles},
		{Cluster: c, Name: "a", Role: Admin},
		{Cluster: c, Name: "joe.x@example-1", Role: NBD, VDisks: "a/b c&d=ü*", ReadOnly: true},
	} {
		if got, err := ParseIdentity(id.URI()); err != nil || got != id {
			t.Errorf("%s: %+v, %v", id.URI(), got, err)
		}
	}
	p := "ovs://" + c.String()
	for _, uri := range []string{
		"", "http://x", p, p + "/host/x?roles=asd", p + "/host/" + sampleID(1).String(), p + "/host/" + sampleID(1).String() + "?roles=asd,asd",
		p + "/host/" + sampleID(1).String() + "?roles=arakoon,asd,root", p + "/host/" + sampleID(1).String() + "?roles=arakoon,driver",
		p + "/person/a?role=root", p + "/person/a/b?role=nbd", p + "/person/a?role=nbd&ro=0", p + "/person/a?role=nbd&role=admin",
		p + "/person/a?role=nbd#x", "ovs://u@" + c.String() + "/person/a?role=nbd", p + "/person/a?ro=1&role=nbd", p + "/person/%61?role=nbd",
	} {
		if id, err := ParseIdentity(uri); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is %+v, %v", uri, id, err)
		}
	}
	for scope, covers := range map[string]map[string]bool{
		"":      {"a": true, "": true},
		"a/b":   {"a/b": true, "a/b/c": true, "a/bc": false, "a": false},
		"a/":    {"a": true, "a/b": true, "ab": false},
		"vm1-*": {"vm1-root": true, "vm10": false, "vm1": false},
		"*":     {"a": true},
	} {
		for name, want := range covers {
			if got := (Identity{VDisks: scope}).Covers(name); got != want {
				t.Errorf("scope %q covers %q: %v", scope, name, got)
			}
		}
	}
}
