// Package dnsconfig stands in for nebula's own module of this name, which not every mirror of Go modules has.
// It leaves a host's resolver alone and says so; the bench writes no "dns" stanza, so nothing else is asked of it.
package dnsconfig

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
)

// ErrConfigurationDeclined: this host's resolver is not managed.
var ErrConfigurationDeclined = errors.New("this build does not manage the resolver")

// ErrInterfaceRequired is never returned here.
var ErrInterfaceRequired = errors.New("an interface is required")

// BackendKind chooses how a resolver is told; here no choice does anything.
type BackendKind string

// BackendAuto leaves the choice to the package.
const BackendAuto BackendKind = "auto"

// Config is what a resolver would be told.
type Config struct {
	Nameservers   []netip.Addr
	SearchDomains []string
	MatchDomains  []string
}

// Validate accepts everything: Set declines it all.
func (Config) Validate() error { return nil }

// IsSplit tells whether only some domains would be resolved by the nameservers.
func (c Config) IsSplit() bool { return len(c.MatchDomains) > 0 }

// Options are what a Manager is made with.
type Options struct {
	Identity      string
	InterfaceName string
	Logger        *slog.Logger
	ForceBackend  BackendKind
}

// Manager manages nothing.
type Manager struct{}

// New returns a Manager.
func New(context.Context, Options) (*Manager, error) { return &Manager{}, nil }

// Set declines.
func (*Manager) Set(Config) error { return ErrConfigurationDeclined }

// Clear has nothing to take back.
func (*Manager) Clear() error { return nil }

// Close has nothing to take back.
func (*Manager) Close() error { return nil }

// ValidateIdentity accepts everything.
func ValidateIdentity(string) error { return nil }
