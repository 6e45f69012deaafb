# Lessons for everybody, coded once when they are stored; a page or a form is its
# user's. Where cookies matter, Varnish's own rules hold (it passes them). Grace and errors kept for a second, as for a school that must stay up.
vcl 4.1;
backend lms { .host = "{{.OriginHost}}"; .port = "{{.OriginPort}}"; }
sub vcl_recv {
  set req.backend_hint = lms;
  if (req.method != "GET" && req.method != "HEAD") { return (pass); }
  if (req.url ~ "^/(page|forms|attendance)/") { return (pass); }
{{- if not .Private}}
  unset req.http.Cookie;
  return (hash);
{{- end}}
}
sub vcl_backend_response {
  set beresp.grace = 1h;
  if (beresp.http.Content-Type ~ "^text/") { set beresp.do_gzip = true; }
  if (beresp.status >= 500) { set beresp.ttl = 1s; set beresp.grace = 0s; }
}
