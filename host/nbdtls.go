package host

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"openvstorage/internal/control"
	"openvstorage/nbd"
)

// NBDTLS says how NBD is served by TCP. Unix sockets are served in plain text always.
type NBDTLS struct {
	Mode nbd.TLSMode

	// PEM files, needed unless Mode is nbd.TLSOff. Each is read again when it has changed.
	Cert string // the server's certificate, and those between it and its CA
	Key  string // its key, which nobody else may read
	CA   string // of clients: a certificate of it opens everything; "": nobody is asked for one
}

// Safe tells whether both sides show certificates, so that other machines may be let in.
func (t NBDTLS) Safe() bool { return t.Mode == nbd.TLSRequired && t.CA != "" }

// pemMax bounds a PEM file in bytes.
const pemMax = 1 << 20

// certsCheck is how often the files of certificates are looked at, at most: a client must
// not make a disk busy by coming again and again.
const certsCheck = time.Second

// certFiles are the certificates of NBD in files. Its methods are safe for concurrent use.
type certFiles struct {
	of     NBDTLS
	logger *slog.Logger
	config atomic.Pointer[tls.Config] // of the last files that were good

	checking sync.Mutex
	at       time.Time    // of the last look
	seen     [3]fileState // of the last files that were good
	said     trouble      // that was logged last
}

// fileState is what changes when a file does.
type fileState struct {
	inode uint64
	size  int64
	times [2]int64 // of its content and of itself, ns
}

// trouble is why files cannot be used.
type trouble struct {
	seen [3]fileState
	text string
}

// newCertFiles reads the files, which must be good.
func newCertFiles(of NBDTLS, logger *slog.Logger) (*certFiles, error) {
	c := &certFiles{of: of, logger: logger, at: time.Now()}
	config, seen, err := c.read()
	if err != nil {
		return nil, err
	}
	c.seen = seen
	c.config.Store(config)
	return c, nil
}

// current returns the configuration for a client that comes now: of the files as they are, or,
// if these cannot be used, of those before. While one client has the files looked at, others
// get what there is.
func (c *certFiles) current() (*tls.Config, error) {
	if c.checking.TryLock() {
		defer c.checking.Unlock()
		if now := time.Now(); now.Sub(c.at) >= certsCheck {
			c.at = now
			c.reread()
		}
	}
	return c.config.Load(), nil
}

// reread reads the files if they are not those that are used. Files that cannot be used are read
// again each time: what is wrong may be a directory, or a lack of descriptors.
func (c *certFiles) reread() {
	if seen, err := c.states(); err == nil && seen == c.seen {
		return
	}
	config, seen, err := c.read()
	if err == nil {
		c.seen, c.said = seen, trouble{}
		c.config.Store(config)
		c.logger.Info("new certificate of NBD", "file", c.of.Cert, "until", config.Certificates[0].Leaf.NotAfter)
		return
	}
	if now := (trouble{seen, err.Error()}); now != c.said { // said once
		c.said = now
		c.logger.Warn("the new certificate of NBD cannot be used; the one before is used on", "err", err,
			"until", c.config.Load().Certificates[0].Leaf.NotAfter)
	}
}

// stateOf is the state of a file that was asked about.
func stateOf(info fs.FileInfo) fileState {
	st := info.Sys().(*syscall.Stat_t)
	return fileState{
		inode: st.Ino, size: st.Size,
		times: [2]int64{st.Mtim.Sec*1e9 + st.Mtim.Nsec, st.Ctim.Sec*1e9 + st.Ctim.Nsec},
	}
}

func (c *certFiles) paths() []string {
	paths := []string{c.of.Cert, c.of.Key}
	if c.of.CA != "" {
		paths = append(paths, c.of.CA)
	}
	return paths
}

// states are those of the files now; of one that is not there, zero.
func (c *certFiles) states() (all [3]fileState, err error) {
	for i, path := range c.paths() {
		info, e := os.Stat(path)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		all[i] = stateOf(info)
	}
	return all, err
}

// read reads and checks all files. seen is their state before.
func (c *certFiles) read() (config *tls.Config, seen [3]fileState, err error) {
	seen, _ = c.states() // reading tells the error
	cert, err := readPEM(c.of.Cert, nil)
	if err != nil {
		return nil, seen, fmt.Errorf("certificate of NBD: %w", err)
	}
	key, err := readPEM(c.of.Key, checkKeyFile)
	if err != nil {
		return nil, seen, fmt.Errorf("key of NBD: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, seen, fmt.Errorf("certificate %s and key %s of NBD: %w", c.of.Cert, c.of.Key, err)
	}
	if until := pair.Leaf.NotAfter; time.Now().After(until) {
		return nil, seen, fmt.Errorf("certificate %s of NBD has expired on %s: put a new one in its place", c.of.Cert, until.Format(time.DateTime))
	}
	config = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	if c.of.CA == "" {
		return config, seen, nil
	}
	ca, err := readPEM(c.of.CA, checkOpenFile)
	if err != nil {
		return nil, seen, fmt.Errorf("CA of NBD clients: %w", err)
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(ca) {
		return nil, seen, fmt.Errorf("CA of NBD clients: %s has no certificate in PEM", c.of.CA)
	}
	return config, seen, nil
}

// readPEM reads a file, which check may refuse. What is no file is refused first, and its
// open does not wait for whoever writes to it: that would stop all renewals.
func readPEM(path string, check func(*os.File, string) error) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if check != nil {
		if err := check(f, path); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, pemMax+1))
	if err == nil && len(b) > pemMax {
		err = fmt.Errorf("longer than %d bytes", pemMax)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// authorizeNBD lets whoever has a certificate of the CA open everything. It is for hosts of
// no cluster: see clusterTLS.
func authorizeNBD(*tls.ConnectionState) (nbd.Access, error) {
	return func(string) nbd.Right { return nbd.WriteAccess }, nil
}

// nbdTLS is how the NBD server uses TLS.
func (d *daemon) nbdTLS() (nbd.TLS, error) {
	if d.opt.NBDTLS.Mode == nbd.TLSOff || d.opt.clusterNBD() {
		return nbd.TLS{}, nil
	}
	files, err := newCertFiles(d.opt.NBDTLS, d.logger)
	if err != nil {
		return nbd.TLS{}, err
	}
	return nbd.TLS{Config: files.current, Authorize: authorizeNBD}, nil
}

// nbdMode is whether a listener uses TLS.
func (d *daemon) nbdMode(l net.Addr) nbd.TLSMode {
	if l.Network() != "tcp" {
		return nbd.TLSOff
	}
	if d.opt.clusterNBD() {
		return d.opt.clusterMode(l)
	}
	return d.opt.NBDTLS.Mode
}

// warnOpen says which addresses let everybody in.
func (d *daemon) warnOpen() {
	for _, l := range d.nbdLns {
		addr := l.Addr()
		if addr.Network() != "tcp" || control.CheckLoopback(addr.String()) == nil || d.opt.NBDTLS.Safe() || d.opt.clusterNBD() && d.nbdMode(addr) == nbd.TLSRequired {
			continue
		}
		what := "every machine that reaches this address reads and writes all vDisks, and nothing is encrypted"
		switch d.nbdMode(addr) {
		case nbd.TLSAllowed:
			what = "clients may go without TLS, and then every machine that reaches this address reads and writes all vDisks"
		case nbd.TLSRequired:
			what = "every machine that reaches this address reads and writes all vDisks: clients are asked for no certificate"
		}
		d.logger.Warn("INSECURE: "+what, "nbd", show(addr), "cure", "--nbd-tls required with --nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca")
	}
}
