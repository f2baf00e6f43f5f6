package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// team lets a client called X open what begins with "X/", and read what begins with "all/".
func team(peer *tls.ConnectionState) (nbd.Access, error) {
	name := peer.VerifiedChains[0][0].Subject.CommonName
	if name == "revoked" {
		return nil, errors.New("certificate revoked is revoked")
	}
	if name == "nothing" {
		return nil, nil
	}
	return func(export string) nbd.Right {
		switch {
		case strings.HasPrefix(export, name+"/"):
			return nbd.WriteAccess
		case strings.HasPrefix(export, "all/"):
			return nbd.ReadAccess
		case export == "odd":
			return nbd.Right(77)
		}
		return nbd.NoAccess
	}, nil
}

// names are what LIST shows.
func names(t *testing.T, s *secured, client string) (names []string, h *nbdclient.Handshake) {
	t.Helper()
	conn, h := s.raw()
	if _, err := h.StartTLS(conn, s.ca.ClientTLS(s.ca.Client(client))); err != nil {
		t.Fatal(err)
	}
	rs, err := h.Option(nbd.OptList, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Type == nbd.RepServer {
			names = append(names, strings.TrimSuffix(string(r.Payload[4:]), "memory"))
		} else if err := r.Err(); err != nil {
			names = append(names, err.Error())
		}
	}
	return names, h
}

func TestCertificateSaysWhatIsSeenAndOpened(t *testing.T) {
	exports := nbdtest.Exports{}
	for _, name := range []string{"a/1", "a/2", "all/iso", "b/1", "odd"} {
		exports[name] = nbdtest.NewMemory(testSize)
	}
	s := serveTLS(t, exports, nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, _ *nbdtest.CA) { o.Authorize = team })
	list, h := names(t, s, "a")
	if want := []string{"a/1", "a/2", "all/iso"}; !slices.Equal(list, want) {
		t.Errorf("a sees %q, want %q", list, want)
	}
	// What it may not open is not there: the same answer, whether it is or not.
	var answers []string
	for _, name := range []string{"b/1", "b/2", "odd", "none"} {
		for opt, payload := range map[nbd.Option][]byte{
			nbd.OptInfo: nbdclient.InfoPayload(name), nbd.OptGo: nbdclient.InfoPayload(name),
		} {
			rs, err := h.Option(opt, payload)
			if err != nil || rs[0].Type != nbd.RepErrUnknown {
				t.Fatalf("%s: %+v %v", name, rs, err)
			}
			answers = append(answers, strings.ReplaceAll(string(rs[0].Payload), name, "NAME"))
		}
	}
	if slices.Sort(answers); answers[0] != answers[len(answers)-1] {
		t.Errorf("answers tell which exports there are: %q", answers)
	}
	if info, err := h.Info("all/iso"); err != nil || info.Flags&nbd.ReadOnly == 0 {
		t.Errorf("all/iso: %+v %v", info, err)
	}
	c, err := s.open("all/iso", "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteAt([]byte("x"), 0); !errors.Is(err, nbd.EPERM) {
		t.Errorf("write to what may be read: %v", err)
	}
	if c, err = s.open("a/1", "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
	if list, _ := names(t, s, "nothing"); len(list) != 0 {
		t.Errorf("nothing sees %q", list)
	}
	if list, _ := names(t, s, "revoked"); len(list) != 1 || !strings.Contains(list[0], "is revoked") {
		t.Errorf("revoked sees %q", list)
	}
}

// What is refused is logged with the name in the certificate.
func TestWhatIsRefusedIsLogged(t *testing.T) {
	var log syncBuffer
	ca := nbdtest.NewCA(t)
	config := ca.ServerTLS()
	s, err := nbd.NewServer(nbdtest.Exports{"b/1": nbdtest.NewMemory(testSize)}, nbd.Options{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		TLS:    nbd.TLS{Config: func() (*tls.Config, error) { return config, nil }, Authorize: team},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(context.Background(), ln, nbd.TLSRequired) }()
	for _, name := range []string{"a", "revoked"} {
		opts := nbdclient.Options{Export: "b/1", TLS: ca.ClientTLS(ca.Client(name))}
		if _, err := nbdclient.Dial(t.Context(), "tcp", ln.Addr().String(), opts); err == nil {
			t.Errorf("%s has opened it", name)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	for _, want := range []string{`msg="nbd: export refused"`, `peer="CN=a"`, `export="\"b/1\""`, `msg="nbd: client refused"`, `peer="CN=revoked"`, "is revoked"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log.String())
		}
	}
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// The empty name is the only export that the client may open.
func TestDefaultExportIsTheOnlyVisibleOne(t *testing.T) {
	exports := nbdtest.Exports{"a/1": nbdtest.NewMemory(testSize), "b/1": nbdtest.NewMemory(testSize)}
	s := serveTLS(t, exports, nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, _ *nbdtest.CA) { o.Authorize = team })
	c, err := s.open("", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil { // it is listed from its first request on, at the latest
		t.Error(err)
	}
	if got := s.Connections(); len(got) != 1 || got[0].Export != "a/1" {
		t.Errorf("%+v", got)
	}
	if _, err := s.open("", "nothing"); err == nil {
		t.Error("a default export for whoever may open none")
	}
}

func TestCertificatesThatAreNotTaken(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, nil)
	other := nbdtest.NewCA(t)
	for name, change := range map[string]func(c *tls.Config){
		"none":            func(c *tls.Config) { c.Certificates = nil },
		"another CA":      func(c *tls.Config) { c.Certificates[0] = other.Client("vm") },
		"expired":         func(c *tls.Config) { c.Certificates[0] = s.ca.Expired("vm") },
		"one of a server": func(c *tls.Config) { c.Certificates[0] = s.ca.Server("vm") },
	} {
		config := s.ca.ClientTLS(s.ca.Client("vm"))
		change(config)
		if _, err := s.dial(nbdclient.Options{Export: "disk", TLS: config}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, change := range map[string]func(c *tls.Config){
		"another CA":   func(c *tls.Config) { c.RootCAs = other.Pool() },
		"another name": func(c *tls.Config) { c.ServerName = "elsewhere" },
	} {
		config := s.ca.ClientTLS(s.ca.Client("vm"))
		change(config)
		if _, err := s.dial(nbdclient.Options{Export: "disk", TLS: config}); err == nil || !strings.Contains(err.Error(), "x509") {
			t.Errorf("server of %s: %v", name, err)
		}
	}
	conn, h := s.raw()
	if _, err := h.Option(nbd.OptStartTLS, nil); err != nil {
		t.Fatal(err)
	}
	old := s.ca.ClientTLS(s.ca.Client("vm"))
	old.MaxVersion = tls.VersionTLS12
	if err := tls.Client(conn, old).Handshake(); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	if n := len(s.Connections()); n != 0 {
		t.Errorf("%d connections got through", n)
	}
}

// Whoever asks for certificates must say what they open; a certificate that nobody verified
// opens nothing.
func TestCertificatesOpenNothingByDefault(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*tls.Config)
		text   string
	}{
		"nobody said": {func(*tls.Config) {}, "was not told what they open"},
		"through another": {func(c *tls.Config) {
			d := c.Clone()
			c.ClientAuth = tls.NoClientCert
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return d, nil }
		}, "was not told what they open"},
		"nobody verified":      {func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, "was not verified"},
		"no certificate asked": {func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }, ""},
	} {
		s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, ca *nbdtest.CA) {
			config := ca.ServerTLS()
			c.change(config)
			o.Config, o.Authorize = func() (*tls.Config, error) { return config, nil }, nil
		})
		_, err := s.open("disk", "vm")
		if c.text == "" && err != nil || c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// GetConfigForClient cannot bring back what the server does not speak.
func TestChosenConfigurationIsHardened(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, ca *nbdtest.CA) {
		inner := ca.ServerTLS()
		inner.MinVersion = tls.VersionTLS10
		outer := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }}
		o.Config = func() (*tls.Config, error) { return outer, nil }
	})
	conn, h := s.raw()
	if _, err := h.Option(nbd.OptStartTLS, nil); err != nil {
		t.Fatal(err)
	}
	old := s.ca.ClientTLS(s.ca.Client("vm"))
	old.MaxVersion = tls.VersionTLS12
	if err := tls.Client(conn, old).Handshake(); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	if _, err := s.open("disk", "vm"); err != nil {
		t.Error(err)
	}
}

// A configuration that cannot be had is told before anything else happens.
func TestConfigurationThatFails(t *testing.T) {
	for text, config := range map[string]func() (*tls.Config, error){
		"no certificate yet":        func() (*tls.Config, error) { return nil, errors.New("no certificate yet") },
		"there is no configuration": func() (*tls.Config, error) { return nil, nil },
	} {
		s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, _ *nbdtest.CA) { o.Config = config })
		if _, err := s.open("disk", "vm"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v", err)
		}
	}
	s, err := nbd.NewServer(nbdtest.Exports{}, nbd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeTLS(t.Context(), ln, nbd.TLSRequired); err == nil || !strings.Contains(err.Error(), "no Config") {
		t.Error(err)
	}
	a, b := net.Pipe()
	defer b.Close()
	if err := s.ServeConnTLS(a, nbd.TLSAllowed); err == nil || !strings.Contains(err.Error(), "no Config") {
		t.Error(err)
	}
}

// A certificate that is renewed is shown to whoever comes next, without a restart.
func TestCertificatesAreRenewed(t *testing.T) {
	configs := make(chan *tls.Config, 2)
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, ca *nbdtest.CA) {
		for _, name := range []string{"old", "new"} {
			c := ca.ServerTLS()
			c.Certificates[0] = ca.Server(name)
			configs <- c
		}
		o.Config = func() (*tls.Config, error) { return <-configs, nil }
	})
	for _, want := range []string{"old", "new"} {
		c, err := s.open("disk", "vm")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Conn().(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("the server shows %s, want %s", got, want)
		}
	}
}

func TestDisconnectPeers(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSAllowed, nbd.Limits{}, nil)
	var clients []*nbdclient.Client
	for _, name := range []string{"stays", "goes", ""} {
		opts := nbdclient.Options{Export: "disk"}
		if name != "" {
			opts.TLS = s.ca.ClientTLS(s.ca.Client(name))
		}
		c, err := s.dial(opts)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	if err := s.DisconnectPeers(t.Context(), func(p *tls.ConnectionState) bool {
		return p.PeerCertificates[0].Subject.CommonName == "goes"
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, true} {
		if err := clients[i].Flush(); (err == nil) != want {
			t.Errorf("client %d: %v", i, err)
		}
	}
}

// A connection that is not of the system, such as one of a test, is served too.
func TestTLSOnAPipe(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(4<<20)), nbd.TLSOff, nbd.Limits{}, nil)
	a, b := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.ServeConnTLS(a, nbd.TLSRequired) }()
	c, err := nbdclient.New(t.Context(), b, nbdclient.Options{Export: "disk", TLS: s.ca.ClientTLS(s.ca.Client("vm"))})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	if _, err := c.WriteAt(p, 1); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadAt(p, 1); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Whoever finds no place is told so, without TLS being begun for that.
func TestRefusedByTLSIsToldWhy(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{Connections: 1}, nil)
	if _, err := s.open("disk", "first"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open("disk", "second"); err == nil || !strings.Contains(err.Error(), "the limit") {
		t.Errorf("%v", err)
	}
}
