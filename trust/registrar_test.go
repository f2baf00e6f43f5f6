package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/internal/format"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

func TestFound(t *testing.T) {
	w := newWorld(t)
	if sealed := must(w.authority.Seal(passphrase))(t); trust.RoundsOf(sealed) != trust.SealRounds {
		t.Errorf("a key is sealed with %d rounds", trust.RoundsOf(sealed))
	}
	trust.CheapSeals(t)
	again := func(a *trust.Authority) error {
		return trust.FoundAndOpen(t.Context(), trust.NewRegistrar(trust.RegistrarOptions{Store: w.store}), w.cluster, a, passphrase)
	}
	wants(t, "the same authority again", again(w.authority), nil)
	second := must(trust.NewAuthority(w.cluster, w.now()))(t)
	wants(t, "another authority", again(second), trust.ErrInvalid, "already")
	wants(t, "a short passphrase", trust.Found(t.Context(), trusttest.NewStore(), w.cluster, w.authority, []byte("short")), trust.ErrPassphrase, "12")

	sealed := trust.NewRegistrar(trust.RegistrarOptions{Store: w.store, Host: id(2), Now: w.now})
	wants(t, "a wrong passphrase", sealed.Open(t.Context(), []byte("correct horse batterY")), trust.ErrPassphrase)
	_, err := sealed.Issue(t.Context(), trust.Person{Name: "a", Role: trust.Admin, Request: must(trust.NewRequest(must(trust.NewKey())(t)))(t)})
	wants(t, "signing without the key", err, trust.ErrSealed, id(2).String())
	_, err = sealed.MakeToken(t.Context(), trust.AllRoles, []string{"h:1"}, "")
	wants(t, "a token needs no key", err, nil)

	if err := w.registrar.Reseal(t.Context(), []byte("another passphrase")); err != nil {
		t.Fatal(err)
	}
	wants(t, "the old passphrase", sealed.Open(t.Context(), passphrase), trust.ErrPassphrase)
	wants(t, "the new passphrase", sealed.Open(t.Context(), []byte("another passphrase")), nil)
	sealed.Close()
	wants(t, "closed", sealed.Reseal(t.Context(), passphrase), trust.ErrSealed)

	store := trusttest.NewStore()
	empty := trust.NewRegistrar(trust.RegistrarOptions{Store: store})
	wants(t, "no authority", empty.Open(t.Context(), passphrase), trust.ErrNotFounded)
	wants(t, "founding", trust.Found(t.Context(), store, w.cluster, second, passphrase), nil)
}

func TestJoin(t *testing.T) {
	w := newWorld(t)
	token := must(trust.ParseToken(" " + w.token(t, trust.RoleASD|trust.RoleProxy).Line() + "\n"))(t)
	key := must(trust.NewKey())(t)
	q := must(token.Request(key, id(2), []string{"10.0.0.2", "storage-2.example"}))(t)
	q = must(trust.DecodeJoinRequest(q.Encode()))(t)
	answer := must(w.registrar.Join(t.Context(), q))(t)
	answer = must(trust.DecodeAnswer(answer.Encode()))(t)
	m := must(token.Accept(key, id(2), answer, w.now()))(t)
	if c := m.Certificate; c.NotBefore != start.Add(-trust.Backdate) || c.NotAfter != start.Add(trust.HostLife) || m.RenewAt() != start.Add(trust.RenewAfter) {
		t.Errorf("valid from %s to %s, renewed at %s", c.NotBefore, c.NotAfter, m.RenewAt())
	}
	if err := m.Certificate.VerifyHostname("10.0.0.2"); err != nil {
		t.Error(err)
	}
	if err := m.Certificate.VerifyHostname("storage-2.example"); err != nil {
		t.Error(err)
	}
	hosts := must(w.registrar.Hosts(t.Context()))(t)
	if len(hosts) != 2 || hosts[1].ID != id(2) || hosts[1].Roles != trust.RoleASD|trust.RoleProxy || hosts[1].State != trust.Joined {
		t.Errorf("hosts are %+v", hosts)
	}

	// The answer was lost: the same host asks again for the same key.
	again := must(w.registrar.Join(t.Context(), q))(t)
	if _, err := token.Accept(key, id(2), again, w.now()); err != nil {
		t.Error(err)
	}
	other := must(token.Request(must(trust.NewKey())(t), id(2), nil))(t)
	_, err := w.registrar.Join(t.Context(), other)
	wants(t, "another key", err, trust.ErrToken, "good for one")
	stranger := must(token.Request(key, id(3), nil))(t)
	_, err = w.registrar.Join(t.Context(), stranger)
	wants(t, "another host", err, trust.ErrToken, id(2).String())

	// What the joiner does not take.
	_, err = token.Accept(must(trust.NewKey())(t), id(2), answer, w.now())
	wants(t, "of another key", err, trust.ErrInvalid)
	_, err = token.Accept(key, id(4), answer, w.now())
	wants(t, "of another host", err, trust.ErrWrongPeer)
	elsewhere := *token
	elsewhere.Authority[0]++
	_, err = elsewhere.Accept(key, id(2), answer, w.now())
	wants(t, "of another authority", err, trust.ErrOtherCA)
	more := *token
	more.Roles = trust.AllRoles
	_, err = more.Accept(key, id(2), answer, w.now())
	wants(t, "of other roles", err, trust.ErrWrongPeer)
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, trust.RoleASD)
	key := must(trust.NewKey())(t)
	q := must(token.Request(key, id(2), nil))(t)
	guessed := *q
	guessed.Secret[31] ^= 1
	_, err := w.registrar.Join(t.Context(), &guessed)
	wants(t, "guessed", err, trust.ErrToken, "not known")
	w.add(trust.TokenLife)
	_, err = w.registrar.Join(t.Context(), q)
	wants(t, "expired", err, trust.ErrToken, "expired")
	w.add(-time.Second)
	if _, err = w.registrar.Join(t.Context(), q); err != nil {
		t.Error(err)
	}

	withdrawn := w.token(t, trust.RoleASD)
	tokens := must(w.registrar.Tokens(t.Context()))(t)
	for _, r := range tokens {
		if r.UsedBy != id(2) {
			if err := w.registrar.WithdrawToken(t.Context(), r.Hash); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err = w.registrar.Join(t.Context(), must(withdrawn.Request(key, id(3), nil))(t))
	wants(t, "withdrawn", err, trust.ErrToken, "not known")

	for range trust.TokensMax - 1 {
		w.token(t, trust.RoleASD)
	}
	again := must(w.registrar.Join(t.Context(), q))(t) // whoever lost the answer still gets one
	if again == nil {
		t.Error("no answer")
	}
	w.token(t, trust.RoleASD) // in place of the one that was used
	_, err = w.registrar.Join(t.Context(), q)
	wants(t, "used, and forgotten", err, trust.ErrToken, "not known")
	_, err = w.registrar.MakeToken(t.Context(), trust.RoleASD, []string{"h:1"}, "")
	wants(t, "one too many", err, trust.ErrFull, "ovs host token list")
	w.add(trust.TokenLife)
	w.token(t, trust.RoleASD) // the others expired, and went
	if tokens := must(w.registrar.Tokens(t.Context()))(t); len(tokens) != 1 {
		t.Errorf("%d tokens are left", len(tokens))
	}
}

// Nothing that prints a token, a secret or a request shows the secret.
func TestSecretsAreNotPrinted(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, trust.RoleASD)
	q := must(token.Request(must(trust.NewKey())(t), id(2), nil))(t)
	var printed strings.Builder
	for _, v := range []any{token, *token, q, *q, token.Secret, []trust.Secret{token.Secret}} {
		fmt.Fprintf(&printed, "%v %+v %#v %s %x %d\n", v, v, v, v, v, v)
	}
	_, err := trust.ParseToken(token.Line()[:60])
	fmt.Fprintln(&printed, err)
	for _, form := range []string{"%x", "%X", "%d"} {
		if secret := fmt.Sprintf(form, token.Secret[:]); contains(printed.String(), strings.Trim(secret, "[]")) {
			t.Errorf("the secret is printed: %s", printed.String())
		}
	}
	if contains(printed.String(), token.Line()[len(trust.TokenPrefix)+10:50]) {
		t.Error("an error has the line of a token")
	}
	for _, b := range storeValues(t, w.store) {
		if contains(string(b), string(token.Secret[:])) {
			t.Error("a secret is stored")
		}
	}
}

func storeValues(t *testing.T, s *trusttest.Store) (all [][]byte) {
	t.Helper()
	if err := s.Range(t.Context(), nil, func(_, v []byte) bool { all = append(all, v); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

// Of many that come with one token at the same time, one joins.
func TestOneTokenAtTheSameTime(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, trust.AllRoles)
	const joiners = 4
	errs := make([]error, joiners)
	var wg sync.WaitGroup
	for i := range joiners {
		q := must(token.Request(must(trust.NewKey())(t), id(byte(10+i)), nil))(t)
		wg.Go(func() { _, errs[i] = w.registrar.Join(t.Context(), q) })
	}
	wg.Wait()
	joined := 0
	for _, err := range errs {
		if err == nil {
			joined++
		} else {
			wants(t, "a later one", err, trust.ErrToken)
		}
	}
	if hosts := must(w.registrar.Hosts(t.Context()))(t); joined != 1 || len(hosts) != 2 {
		t.Errorf("%d joined, hosts are %v", joined, hosts)
	}
}

// An outcome that got lost is said, and asking again is right whatever it was.
func TestLostOutcome(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, trust.RoleASD)
	key := must(trust.NewKey())(t)
	q := must(token.Request(key, id(2), nil))(t)
	lost := errors.New("the master went away")
	w.store.Lose = func() error { return lost }
	_, err := w.registrar.Join(t.Context(), q)
	wants(t, "join", err, lost, "may have been made")
	serial := trust.SerialOf(w.first.credentials.Material().Certificate)
	wants(t, "revocation", w.registrar.Revoke(t.Context(), serial, "why"), lost)
	w.store.Lose = nil
	answer := must(w.registrar.Join(t.Context(), q))(t)
	if _, err := token.Accept(key, id(2), answer, w.now()); err != nil {
		t.Error(err)
	}
	wants(t, "revocation again", w.registrar.Revoke(t.Context(), serial, "why"), nil)
}

func TestContention(t *testing.T) {
	w := newWorld(t)
	second := trust.NewRegistrar(trust.RegistrarOptions{Store: w.store, Host: id(2), Now: w.now})
	busy, inside := 0, false
	w.store.Fail = func(method string) error {
		if method == "Swap" && !inside && busy > 0 {
			inside, busy = true, busy-1
			_, err := second.MakeToken(t.Context(), trust.RoleASD, []string{"h:1"}, "")
			inside = false
			return err
		}
		return nil
	}
	busy = 3
	if _, err := w.registrar.MakeToken(t.Context(), trust.RoleASD, []string{"h:1"}, ""); err != nil {
		t.Error(err)
	}
	busy = 100
	_, err := w.registrar.MakeToken(t.Context(), trust.RoleASD, []string{"h:1"}, "")
	wants(t, "always another before", err, trust.ErrContended)
}

func TestHostsThatMayNotJoin(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.AllRoles)
	try := func(n byte, names ...string) error {
		q := must(w.token(t, trust.RoleASD).Request(must(trust.NewKey())(t), id(n), nil))(t)
		q.Names = names // a joiner that checks nothing
		_, err := w.registrar.Join(t.Context(), q)
		return err
	}
	wants(t, "a copy", try(2), trust.ErrInvalid, "copy of its data directory")
	if err := w.registrar.RevokeHost(t.Context(), id(2), "key lost"); err != nil {
		t.Fatal(err)
	}
	wants(t, "a host that lost its key", try(2, "10.0.0.2"), nil)
	wants(t, "the name of another", try(3, "10.0.0.9", "10.0.0.2"), trust.ErrInvalid, id(2).String(), "10.0.0.2")
	for _, name := range []string{"-x", "", "a..b", "Upper", "::0", "::ffff:10.0.0.2", "a b", strings.Repeat("a", 64)} {
		wants(t, "a bad name", try(3, name), trust.ErrInvalid)
	}
	if err := w.registrar.RemoveHost(t.Context(), id(2), "burnt"); err != nil {
		t.Fatal(err)
	}
	wants(t, "removed", try(2), trust.ErrInvalid, "never used again")
	wants(t, "its name is free", try(3, "10.0.0.2"), nil)
	wants(t, "roles of a removed host", w.registrar.SetRoles(t.Context(), id(2), trust.RoleASD), trust.ErrInvalid)
	wants(t, "an unknown host", w.registrar.RemoveHost(t.Context(), id(77), ""), trust.ErrAbsent)
	_ = b
}

// A token that a host has joined with does not bring it back once its key was revoked.
func TestUsedTokenAfterRevocation(t *testing.T) {
	w := newWorld(t)
	token, key := w.token(t, trust.AllRoles), must(trust.NewKey())(t)
	q := must(token.Request(key, id(2), nil))(t)
	must(w.registrar.Join(t.Context(), q))(t)
	if err := w.registrar.RevokeHost(t.Context(), id(2), "stolen"); err != nil {
		t.Fatal(err)
	}
	_, err := w.registrar.Join(t.Context(), q)
	wants(t, "again", err, trust.ErrToken, "revoked")
}

func TestRenew(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.RoleASD)
	m := b.credentials.Material()
	peer := trust.Peer{Kind: trust.HostPeer, Identity: m.Identity(), Serial: trust.SerialOf(m.Certificate), Print: trust.FingerprintOf(m.Certificate), Proven: true}
	renew := func(p trust.Peer, names ...string) error {
		_, err := w.registrar.Renew(t.Context(), p, &trust.RenewRequest{Names: names, Request: must(trust.NewRequest(must(trust.NewKey())(t)))(t)})
		return err
	}
	wants(t, "at once", renew(peer), trust.ErrTooEarly)
	wants(t, "its name has changed", renew(peer, "10.0.0.2"), nil)
	w.add(trust.RenewAfter - time.Second)
	wants(t, "a second too early", renew(peer, "10.0.0.2"), trust.ErrTooEarly)
	w.add(time.Second)
	for range 3 {
		wants(t, "on day 30", renew(peer, "10.0.0.2"), nil)
	}
	wants(t, "the certificate that others have replaced", renew(peer, "10.0.0.2"), trust.ErrAbsent)
	if h := must(w.registrar.Hosts(t.Context()))(t)[1]; len(h.Serials) != 4 {
		t.Errorf("the host has %d certificates", len(h.Serials))
	}
	if n := len(must(w.registrar.Certificates(t.Context()))(t)); n != 5 {
		t.Errorf("%d certificates are on record, not 4 and that of host 1", n)
	}
	wants(t, "a person", renew(trust.Peer{Kind: trust.PersonPeer, Proven: true}), trust.ErrRefused)
	wants(t, "unproven", renew(trust.Claimed(m.Identity(), "")), trust.ErrRefused)
	other := peer
	other.Serial = trust.SerialOf(w.first.credentials.Material().Certificate)
	wants(t, "the number of another", renew(other), trust.ErrUnrecorded)

	// The signing host renews itself, with the roles that are on record.
	if err := w.registrar.SetRoles(t.Context(), id(1), trust.RoleArakoon); err != nil {
		t.Fatal(err)
	}
	key := must(trust.NewKey())(t)
	q := &trust.RenewRequest{Request: must(trust.NewRequest(key))(t)}
	fresh := must(w.first.credentials.Material().Accept(key, must(w.registrar.RenewSelf(t.Context(), q))(t), w.now()))(t)
	if fresh.Identity().Roles != trust.RoleArakoon {
		t.Errorf("it has the roles %s", fresh.Identity().Roles)
	}
	if err := w.registrar.RevokeHost(t.Context(), id(1), "stolen"); err != nil {
		t.Fatal(err)
	}
	_, err := w.registrar.RenewSelf(t.Context(), q)
	wants(t, "itself, revoked", err, trust.ErrAbsent)
}

func TestPeople(t *testing.T) {
	w := newWorld(t)
	m := w.person(t, trust.Person{Name: "backup@dc1", Role: trust.NBD, VDisks: "team a/*", ReadOnly: true, Days: 7})
	want := trust.Identity{Cluster: w.cluster, Name: "backup@dc1", Role: trust.NBD, VDisks: "team a/*", ReadOnly: true}
	if m.Identity() != want || m.Certificate.NotAfter != start.Add(days(7)) {
		t.Errorf("the certificate says %+v, until %s", m.Identity(), m.Certificate.NotAfter)
	}
	request := must(trust.NewRequest(must(trust.NewKey())(t)))(t)
	forged := append([]byte(nil), request...)
	forged[len(forged)-1] ^= 1
	p521 := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t)))(t)
	for name, p := range map[string]trust.Person{
		"no name":        {Role: trust.NBD, Request: request},
		"a bad name":     {Name: "a/b", Role: trust.NBD, Request: request},
		"no role":        {Name: "a", Request: request},
		"too many days":  {Name: "a", Role: trust.NBD, Days: 4000, Request: request},
		"negative days":  {Name: "a", Role: trust.NBD, Days: -1, Request: request},
		"a bad scope":    {Name: "a", Role: trust.NBD, VDisks: "/", Request: request},
		"no request":     {Name: "a", Role: trust.NBD},
		"a forged one":   {Name: "a", Role: trust.NBD, Request: forged},
		"another curve":  {Name: "a", Role: trust.NBD, Request: p521},
		"a huge request": {Name: "a", Role: trust.NBD, Request: make([]byte, trust.RequestMax+1)},
	} {
		_, err := w.registrar.Issue(t.Context(), p)
		wants(t, name, err, trust.ErrInvalid)
	}
}

func TestPrune(t *testing.T) {
	w := newWorld(t)
	for i := range 260 { // more than one batch

		w.person(t, trust.Person{Name: fmt.Sprint("p", i), Role: trust.NBD, Days: 1})
	}
	kept := w.person(t, trust.Person{Name: "kept", Role: trust.NBD, Days: 300})
	w.token(t, trust.RoleASD)
	w.add(days(200)) // that of host 1 is over too, and may be renewed
	if n := must(w.registrar.Prune(t.Context()))(t); n != 261 {
		t.Errorf("%d records went", n)
	}
	certs := must(w.registrar.Certificates(t.Context()))(t)
	if len(certs) != 2 || w.store.Len() != 5 {
		t.Errorf("%d certificates and %d keys are left", len(certs), w.store.Len())
	}
	wants(t, "revoked", w.registrar.Revoke(t.Context(), trust.SerialOf(kept.Certificate), strings.Repeat("x", 500)), nil)
	wants(t, "an unknown one", w.registrar.Revoke(t.Context(), trust.Serial{1}, ""), trust.ErrAbsent)
	if n := must(w.registrar.Prune(t.Context()))(t); n != 0 {
		t.Errorf("%d records went though they are needed", n)
	}
}

// The user's own authority, in every form that its key may have, and what is none.
func TestImportAuthority(t *testing.T) {
	ca, key := userAuthority(t)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rsa"}, NotBefore: start, NotAfter: start.Add(days(50)),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rsaDER := must(x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey))(t)
	template.IsCA = false
	leafDER := must(x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey))(t)
	template.IsCA, template.KeyUsage = true, x509.KeyUsageDigitalSignature
	noSign := must(x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey))(t)
	sec1 := pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))(t))
	pkcs8 := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
	pkcs1 := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))
	for _, c := range []struct {
		name      string
		cert, key []byte
		want      error
		says      string
	}{
		{"SEC 1", pemOf("CERTIFICATE", ca.Raw), sec1, nil, ""},
		{"as openssl ecparam writes it", pemOf("CERTIFICATE", ca.Raw), append(pemOf("EC PARAMETERS", []byte{1}), sec1...), nil, ""},
		{"PKCS 8", pemOf("CERTIFICATE", ca.Raw), pkcs8, nil, ""},
		{"PKCS 1", pemOf("CERTIFICATE", rsaDER), pkcs1, nil, ""},
		{"another's key", pemOf("CERTIFICATE", ca.Raw), pkcs1, trust.ErrInvalid, "not that of the certificate"},
		{"no authority", pemOf("CERTIFICATE", leafDER), pkcs1, trust.ErrInvalid, "CA:TRUE"},
		{"not for signing", pemOf("CERTIFICATE", noSign), pkcs1, trust.ErrInvalid, "keyCertSign"},
		{"no PEM", []byte("x"), sec1, trust.ErrInvalid, "PEM"},
		{"no key", pemOf("CERTIFICATE", ca.Raw), nil, trust.ErrInvalid, "PEM"},
		{"damaged key", pemOf("CERTIFICATE", ca.Raw), pemOf("PRIVATE KEY", []byte{1}), trust.ErrInvalid, "key"},
	} {
		_, err := trust.ImportAuthority(c.cert, c.key, start)
		wants(t, c.name, err, c.want, c.says)
	}
	_, err := trust.ImportAuthority(pemOf("CERTIFICATE", rsaDER), pkcs1, start.Add(days(51)))
	wants(t, "expired", err, trust.ErrInvalid, "expired")

	// It signs for no longer than it lives, and hosts renew in time.
	a := must(trust.ImportAuthority(pemOf("CERTIFICATE", rsaDER), pkcs1, start))(t)
	c := newClock()
	r := trust.NewRegistrar(trust.RegistrarOptions{Store: trusttest.NewStore(), Now: c.now})
	if err := trust.FoundAndOpen(t.Context(), r, id(0xc9), a, passphrase); err != nil {
		t.Fatal(err)
	}
	k := must(trust.NewKey())(t)
	answer := must(r.Admit(t.Context(), id(1), trust.AllRoles, nil, must(trust.NewRequest(k))(t)))(t)
	token := &trust.Token{Cluster: id(0xc9), Authority: a.Fingerprint(), Roles: trust.AllRoles}
	m := must(token.Accept(k, id(1), answer, c.now()))(t)
	if m.Certificate.NotAfter != start.Add(days(50)) || m.RenewAt() != start.Add(days(25)) {
		t.Errorf("until %s, renewed at %s", m.Certificate.NotAfter, m.RenewAt())
	}
	c.add(days(51))
	_, err = r.Issue(t.Context(), trust.Person{Name: "a", Role: trust.Admin, Request: must(trust.NewRequest(k))(t)})
	if err == nil || !contains(err.Error(), "the authority itself has expired") {
		t.Error(err)
	}
}

// What a sealed key costs whoever tries passphrases is what the documents say, and one that is cheaper is
// refused: only tests of other packages may have others.
func TestWhatAPassphraseCosts(t *testing.T) {
	if trust.RoundsLeast() != 100_000 || trust.RoundsNow() != trust.SealRounds || trust.SealRounds != 600_000 {
		t.Errorf("%d rounds, at least %d", trust.RoundsNow(), trust.RoundsLeast())
	}
	w := newWorld(t)
	wants(t, "a key that is cheap to try", trust.OpenCheap(w.authority, passphrase), format.ErrCorrupt, "rounds")
}
