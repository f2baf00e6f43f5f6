package clustercmd

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/trust"
)

// caCommands are the commands of `ovs ca`: the cluster's certificate authority.
type caCommands struct{ Tools }

func (cmds caCommands) group() *cobra.Command {
	return cmds.Group("ca", "look at the cluster's certificate authority, issue and revoke certificates", cmds.show(), cmds.issue(), cmds.list(), cmds.revoke(), cmds.open(), cmds.reseal())
}

func (cmds caCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:               "show",
		Short:             "show the authority, and its certificate in PEM",
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			a, err := client.Authority(c.Context())
			if err != nil {
				return err
			}
			return cmds.Print(a, func(w io.Writer) {
				fmt.Fprintf(w, "cluster\t%s\nfingerprint\t%s\nfrom\t%s\nuntil\t%s\n", a.Cluster, a.Fingerprint, When(a.From), When(a.Until))
				signs := "yes"
				if !a.Open {
					signs = "no"
				}
				fmt.Fprintf(w, "this host signs\t%s\n", signs)
				for _, who := range a.Signers {
					fmt.Fprintf(w, "signs\t%s\n", who)
				}
				_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate})
			})
		}),
	}
}

// issued is what `ovs ca issue` prints.
type issued struct {
	Serial string    `json:"serial"`
	Until  time.Time `json:"until"`
	Files  []string  `json:"files"`
}

// Files of a certificate, as QEMU and libnbd look for them in a directory.
const (
	caFile   = "ca-cert.pem"
	certFile = "client-cert.pem"
	keyFile  = "client-key.pem"
)

func (cmds caCommands) issue() *cobra.Command {
	q, out := control.IssueRequest{}, ""
	c := &cobra.Command{
		Use:   "issue --name NAME --role ROLE --out DIR",
		Short: "make a key, and a certificate for a person or a program",
		Long: `ovs ca issue makes a key on this machine, has the cluster sign a certificate for it,
and writes ca-cert.pem, client-cert.pem and client-key.pem into a new directory, as
QEMU (tls-creds-x509) and libnbd (tls-certificates) take them.

A role is admin (everything), viewer (looks at everything but data), metrics, or nbd
(opens vDisks). --vdisk NAME is for that vDisk and all below it, NAME* for all whose
names begin so.`,
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Name == "" || q.Role == "" || out == "" {
				return cmds.Usage("%s: give --name, --role and --out", c.CommandPath())
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			made, err := cmds.issued(c, client, q, out)
			if err != nil {
				return err
			}
			return cmds.Print(made, func(w io.Writer) {
				fmt.Fprintf(w, "certificate %s until %s, in %s\n", made.Serial, When(made.Until), out)
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&q.Name, "name", "", "`name` of whoever it is for")
	flags.StringVar(&q.Role, "role", "", "`role`: admin, viewer, metrics or nbd")
	flags.StringVar(&q.VDisks, "vdisk", "", "only for the vDisk `PREFIX`, and those below it (default all)")
	flags.BoolVar(&q.ReadOnly, "ro", false, "nothing can be changed with it")
	flags.IntVar(&q.Days, "days", trust.PersonDays, fmt.Sprintf("it expires after `n` days, at most %d", trust.PersonDaysMax))
	flags.StringVar(&out, "out", "", "make this `directory`, and the files in it")
	_ = c.MarkFlagDirname("out")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]cobra.Completion{"admin", "viewer", "metrics", "nbd"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// issued has a certificate signed, and writes it. The directory comes first: a certificate that nobody can
// write is signed for nothing. If anything fails behind that, the directory goes again.
func (cmds caCommands) issued(c *cobra.Command, client *control.Client, q control.IssueRequest, out string) (_ issued, err error) {
	if q.Days < 1 {
		return issued{}, cmds.Usage("%s: --days %d: give 1 to %d", c.CommandPath(), q.Days, trust.PersonDaysMax)
	}
	key, err := trust.NewKey()
	if err != nil {
		return issued{}, err
	}
	if q.Request, err = trust.NewRequest(key); err != nil {
		return issued{}, err
	}
	if err := os.Mkdir(out, 0o700); err != nil {
		return issued{}, fmt.Errorf("--out: %w", err)
	}
	signed := ""
	defer func() {
		if err != nil && signed == "" {
			err = errors.Join(err, os.RemoveAll(out))
		} else if err != nil {
			err = fmt.Errorf("certificate %s was signed, and is not written: revoke it (`ovs ca revoke %s`): %w", signed, signed, err)
		}
	}()
	made, err := client.Issue(c.Context(), q)
	if err != nil {
		return issued{}, err
	}
	signed = made.Serial
	m := &trust.Material{Key: key}
	if m.Certificate, err = x509.ParseCertificate(made.Certificate); err != nil {
		return issued{}, err
	}
	if m.Authority, err = x509.ParseCertificate(made.Authority); err != nil {
		return issued{}, err
	}
	authority, certificate, private, err := m.PEM()
	if err != nil {
		return issued{}, err
	}
	result := issued{Serial: made.Serial, Until: made.Until}
	for _, f := range []struct {
		name string
		text []byte
	}{{caFile, authority}, {certFile, certificate}, {keyFile, private}} {
		name := filepath.Join(out, f.name)
		if err := os.WriteFile(name, f.text, 0o600); err != nil {
			return issued{}, err
		}
		result.Files = append(result.Files, name)
	}
	return result, nil
}

func (cmds caCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list all certificates that are on record",
		Args:              cmds.Wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := client.Certificates(c.Context())
			if err != nil {
				return err
			}
			return cmds.Print(list, func(w io.Writer) { writeCertificates(w, list) })
		}),
	}
}

func writeCertificates(w io.Writer, list []control.Certificate) {
	fmt.Fprintln(w, "SERIAL\tOF\tNAME\tROLE\tVDISKS\tREAD-ONLY\tUNTIL\tREVOKED")
	for _, c := range list {
		only, revoked := "no", "-"
		if c.ReadOnly {
			only = "yes"
		}
		if c.Revoked != nil {
			revoked = When(*c.Revoked) + " " + c.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Serial, c.Of, c.Name, c.Role, dash(c.VDisks), only, When(c.Until), revoked)
	}
}

func (cmds caCommands) revoke() *cobra.Command {
	host, reason := "", ""
	c := &cobra.Command{
		Use:   "revoke SERIAL | --host HOST",
		Short: "revoke a certificate, or all of a host",
		Long: `ovs ca revoke revokes a certificate for ever: connections that show it end, on every
host within seconds. With --host it revokes all certificates of a host whose key may be
known. To use that machine again, remove the host, and join with an empty data
directory.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (host != "") {
				return cmds.Usage("%s: give the serial number of a certificate, or --host", c.CommandPath())
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			serial, name := "", host
			if len(args) == 1 {
				serial, name = args[0], args[0]
			}
			if err := client.Revoke(c.Context(), serial, host, reason); err != nil {
				return err
			}
			return cmds.Done("revoked", name)
		},
	}
	c.Flags().StringVar(&host, "host", "", "revoke all certificates of this `host`")
	c.Flags().StringVar(&reason, "reason", "", "`why`, for the list")
	return c
}
