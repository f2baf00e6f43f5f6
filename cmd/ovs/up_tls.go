package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/nbd"
)

// tlsMode is the value of --nbd-tls.
type tlsMode struct {
	mode nbd.TLSMode
	set  bool
}

var tlsModes = []nbd.TLSMode{nbd.TLSRequired, nbd.TLSAllowed, nbd.TLSOff}

// String implements pflag.Value. Until it is set there is nothing to show: the default depends on
// other flags.
func (m *tlsMode) String() string {
	if !m.set {
		return ""
	}
	return m.mode.String()
}

// Type implements pflag.Value.
func (m *tlsMode) Type() string { return "mode" }

// Set implements pflag.Value.
func (m *tlsMode) Set(s string) error {
	for _, mode := range tlsModes {
		if mode.String() == s {
			m.mode, m.set = mode, true
			return nil
		}
	}
	return errors.New("give required, allowed or off")
}

func (f *upFlags) addTLS(c *cobra.Command) {
	flags := c.Flags()
	flags.Var(&f.tls, "nbd-tls", "`mode` of TLS of --nbd-tcp: required; allowed, which serves clients without it too; or off (default required if there is a certificate, off otherwise)")
	flags.StringVar(&f.NBDTLS.Cert, "nbd-tls-cert", "", "`FILE` with the certificate that NBD clients are shown, in PEM; it is read again when it changes")
	flags.StringVar(&f.NBDTLS.Key, "nbd-tls-key", "", "`FILE` with the key of that certificate, in PEM")
	flags.StringVar(&f.NBDTLS.CA, "nbd-tls-ca", "", "`FILE` with a CA, in PEM: NBD clients show a certificate of it, and may then open every vDisk (default: they are asked for none)")
	for _, name := range []string{"nbd-tls-cert", "nbd-tls-key", "nbd-tls-ca"} {
		_ = c.MarkFlagFilename(name, "pem", "crt", "key")
	}
	_ = c.RegisterFlagCompletionFunc("nbd-tls", cobra.FixedCompletions([]cobra.Completion{"required", "allowed", "off"}, cobra.ShellCompDirectiveNoFileComp))
}

// checkTLS fills in the mode of TLS, and refuses flags that do not go together.
func (f *upFlags) checkTLS(command string) (err error) {
	o := &f.NBDTLS
	o.Mode = f.tls.mode
	if !f.tls.set && o.Cert != "" {
		o.Mode = nbd.TLSRequired
	}
	switch {
	case (o.Cert == "") != (o.Key == ""):
		return usagef("%s: --nbd-tls-cert and --nbd-tls-key go together: give both", command)
	case o.CA != "" && o.Cert == "":
		return usagef("%s: --nbd-tls-ca needs a certificate of this server too: give --nbd-tls-cert and --nbd-tls-key", command)
	case o.Mode != nbd.TLSOff && o.Cert == "" && f.Cluster.Listen == "":
		return usagef("%s: --nbd-tls %v needs a certificate: give --nbd-tls-cert and --nbd-tls-key", command, o.Mode)
	}
	for _, path := range []*string{&o.Cert, &o.Key, &o.CA} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// checkAddresses refuses addresses where other machines could do everything. The metrics ask for
// no password, and NBD does not without TLS and certificates of clients. So other machines reach
// them only if somebody says so.
func (f *upFlags) checkAddresses(command string) error {
	if f.Insecure {
		return nil
	}
	for _, address := range f.NBDTCP {
		if err := control.CheckLoopback(address); err != nil && !((f.NBDTLS.Safe() || f.Cluster.Listen != "") && errors.Is(err, control.ErrNotLoopback)) {
			if errors.Is(err, control.ErrNotLoopback) {
				return usagef("%s: --nbd-tcp: %w; or give --nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca", command, err)
			}
			return usagef("%s: --nbd-tcp: %w", command, err)
		}
	}
	if f.Metrics != "" {
		if err := control.CheckLoopback(f.Metrics); err != nil {
			return usagef("%s: --metrics: %w", command, err)
		}
	}
	return nil
}
