package lms

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// How long things take on a quiet day. Media come from storage that is shared
// by everything; the personal page joins a dozen tables.
var service = [kinds]time.Duration{
	List:    20 * time.Millisecond,
	Page:    30 * time.Millisecond,
	Media:   40 * time.Millisecond,
	Me:      12 * time.Millisecond,
	Login:   50 * time.Millisecond,
	CheckIn: 25 * time.Millisecond,
	Bulk:    20 * time.Millisecond,
	Other:   5 * time.Millisecond,
}

// sessionCookie is set by everything, as platforms do.
const sessionCookie = "lms_session"

// ServeHTTP counts the request, lets the heart serve it, and answers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, content := s.kindOf(r)
	s.count.arrived(kind, time.Now(), s.heart.insideNow()+1)
	if kind == Health {
		s.answerHealth(w)
		return
	}
	if err := s.heart.beat(r.Context(), service[kind]); err != nil {
		if r.Context().Err() != nil {
			s.count.left(kind)
			return
		}
		s.fail(w, kind)
		return
	}
	switch kind {
	case List, Page, Media:
		s.answerContent(w, r, content)
	case Me:
		s.answerMe(w, r)
	case Login:
		s.answerLogin(w, r)
	case CheckIn:
		s.answerCheckIn(w, r)
	case Bulk:
		s.answerBulk(w, r)
	default:
		s.count.answered(Other, false, resource{})
		http.NotFound(w, r)
	}
}

func (s *Server) kindOf(r *http.Request) (Kind, *Content) {
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch path := r.URL.Path; {
	case get && path == "/healthz":
		return Health, nil
	case get && path == "/me":
		return Me, nil
	case get && strings.HasPrefix(path, "/login/"):
		return Login, nil
	case r.Method == http.MethodPost && path == "/attendance/check-in":
		return CheckIn, nil
	case r.Method == http.MethodPost && path == "/api/attendance/bulk":
		return Bulk, nil
	case get:
		if c := s.library.find(s.schools[leftmost(r.Host)], path); c != nil {
			return c.kind, c
		}
	}
	return Other, nil
}

func (s *Server) answerHealth(w http.ResponseWriter) {
	if !s.heart.up(time.Now()) {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// fail answers as platforms do that have fallen: half of them with an error
// page, half not at all.
func (s *Server) fail(w http.ResponseWriter, kind Kind) {
	now := time.Now()
	s.count.failed(kind, now)
	if now.UnixMicro()%2 == 0 {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("<!doctype html>\n<title>503</title>\n<h1>Service temporarily unavailable</h1>\n"))
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closing sends a reset
	}
	conn.Close()
}

func (s *Server) answerContent(w http.ResponseWriter, r *http.Request, c *Content) {
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=3600")
	if c.kind == List {
		// Announcements are put up during the morning.
		h.Set("Cache-Control", "public, max-age=20, stale-while-revalidate=600")
	}
	h.Set("ETag", c.etag)
	h.Set("Last-Modified", s.count.began.UTC().Format(http.TimeFormat))
	h.Set("Content-Type", c.mediaType)
	s.setSession(h, r)
	if matches(r.Header.Get("If-None-Match"), c.etag) {
		s.count.answered(c.kind, true, resource{c.Host, c.Path})
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.count.answered(c.kind, false, resource{c.Host, c.Path})
	h.Set("Content-Length", strconv.Itoa(len(c.Body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(c.Body) // who has gone is no concern of ours
}

func matches(field, etag string) bool {
	for member := range strings.SplitSeq(field, ",") {
		if m := strings.TrimSpace(member); m == "*" || strings.TrimPrefix(m, "W/") == etag {
			return true
		}
	}
	return false
}

// answerMe is the slow look-up: who am I, what is mine. It belongs to one
// student and says so.
func (s *Server) answerMe(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "private, no-store")
	s.setSession(h, r)
	s.count.answered(Me, false, resource{})
	student, ok := s.student(r)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":"sign in first"}` + "\n"))
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"student_id": student,
		"greeting":   "Good morning, " + student,
		"messages":   crc(student) % 9,
		"homework":   []string{"p. " + strconv.Itoa(int(crc(student)%200)), "essay"},
	})
}

// answerLogin signs in whoever the path names: the platform is for looking at,
// and nobody's secrets are in it.
func (s *Server) answerLogin(w http.ResponseWriter, r *http.Request) {
	s.count.answered(Login, false, resource{})
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Set-Cookie", s.Session(path.Base(r.URL.Path))+"; Path=/; HttpOnly; SameSite=Lax")
	http.Redirect(w, r, "/lessons/", http.StatusSeeOther)
}

func crc(s string) uint32 { return newContent(Other, "", "", "", []byte(s)).CRC }

// setSession sends the session back, or a new one to a stranger: a response
// that somebody shares by mistake hands it to others.
func (s *Server) setSession(h http.Header, r *http.Request) {
	value := "stranger-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if c, err := r.Cookie(sessionCookie); err == nil {
		value = c.Value
	}
	h.Set("Set-Cookie", sessionCookie+"="+value+"; Path=/; HttpOnly; SameSite=Lax")
}

// Session is the cookie, name=value, of a student who has signed in.
func (s *Server) Session(student string) string {
	return sessionCookie + "=" + student + "." + s.sign(student)
}

// sign is a keyed digest. The secret is on both sides of the text, and a digest
// without HMAC's second pass is enough for sessions that guard nothing.
func (s *Server) sign(student string) string {
	b := make([]byte, 0, 128)
	b = append(append(append(b, s.cfg.Secret...), student...), s.cfg.Secret...)
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:8])
}

// student reads who is asking from the session.
func (s *Server) student(r *http.Request) (id string, ok bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return "", false
	}
	id, mac, ok := strings.Cut(c.Value, ".")
	return id, ok && hmac.Equal([]byte(mac), []byte(s.sign(id)))
}

// leftmost is the first label of a host name: the school. What follows it does
// not matter here, so that s01.localhost is the same school in a browser.
func leftmost(host string) string {
	label, _, _ := strings.Cut(host, ".")
	label, _, _ = strings.Cut(label, ":")
	return label
}
