#include "fovea/recipes/lesson_site.h"

#include <nlohmann/json.hpp>

#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/recipes/lessons.h"
#include "fovea/report/save_file.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::escape;

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--page:#fff;--panel:#f5f7f8;--ink:#1c2126;--muted:#5b6670;--rule:#d9dee3;--accent:#1f5f8b;
--good:#146c43;--bad:#a32a1c}
@media (prefers-color-scheme:dark){:root{--page:#14181c;--panel:#1d2328;--ink:#e6eaed;--muted:#98a4ad;--rule:#343c43;
--accent:#7fb8dd;--good:#6fce9e;--bad:#f19082}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.6 system-ui,"Segoe UI","Noto Sans CJK SC","PingFang SC","Microsoft YaHei","WenQuanYi Zen Hei","DejaVu Sans",sans-serif}
main{max-width:860px;margin:0 auto;padding:28px 22px 64px}
header{display:flex;justify-content:space-between;align-items:baseline;gap:16px;border-bottom:2px solid var(--accent);
padding-bottom:10px;margin-bottom:20px}
h1{font-size:1.6rem;line-height:1.25;margin:0}
h2{font-size:1.1rem;margin:28px 0 8px}
p,ol,ul{margin:10px 0}
a{color:var(--accent);text-decoration:none}
a:hover,a:focus{text-decoration:underline}
button{font:inherit;border:1px solid var(--rule);background:var(--panel);color:var(--ink);border-radius:5px;padding:5px 14px;
cursor:pointer}
button:hover{border-color:var(--accent)}
.language{flex:none}
.row{color:var(--muted);font-size:.9rem}
.question{font-size:1.1rem}
.equation{background:var(--panel);border-left:4px solid var(--accent);padding:10px 14px;margin:14px 0;overflow-x:auto;
font-family:"STIX Two Math","Cambria Math","DejaVu Serif",serif;font-size:1.08rem}
form{background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:12px 16px;margin:18px 0}
form div{display:flex;flex-wrap:wrap;gap:6px 12px;align-items:center;margin:7px 0}
label{flex:1 1 20em}
input{font:inherit;width:9em;padding:4px 8px;border:1px solid var(--muted);border-radius:4px;background:var(--page);
color:var(--ink)}
output{min-width:10em;font-weight:600}
.right{color:var(--good)}.wrong{color:var(--bad)}
figure{margin:18px 0}
figure svg{max-width:100%;height:auto;display:block;border:1px solid var(--rule);border-radius:6px}
figcaption,footer{color:var(--muted);font-size:.9rem}
details{border:1px solid var(--rule);border-radius:6px;padding:0 14px;margin:14px 0}
details[open]{padding-bottom:10px}
summary{cursor:pointer;padding:9px 0;font-weight:600}
code,pre{background:var(--panel);border-radius:4px;font-size:.9em}
code{padding:1px 5px}
pre{padding:10px 12px;overflow-x:auto;border:1px solid var(--rule)}
.list{list-style:none;padding:0}
.list li{display:grid;grid-template-columns:6.2em 1fr;gap:2px 12px;padding:11px 0;border-bottom:1px solid var(--rule)}
.list a{font-weight:600}
.list p{grid-column:2;margin:0;color:var(--muted);font-size:.95rem}
nav{display:flex;justify-content:space-between;gap:16px;margin-top:34px;border-top:1px solid var(--rule);padding-top:12px}
html:not(.zh) .zh,html.zh .en{display:none}
)css";

// The language is kept in the address (#zh), which every browser lets a local file do.
constexpr const char* kLanguageScript = R"js(
function language(zh){document.documentElement.classList.toggle('zh',zh);
document.documentElement.lang=zh?'zh':'en';
for(const a of document.querySelectorAll('a[data-page]'))a.href=a.dataset.page+(zh?'#zh':'');}
function toggle(){const zh=!document.documentElement.classList.contains('zh');
history.replaceState(null,'',zh?'#zh':'#');language(zh);}
addEventListener('DOMContentLoaded',()=>language(location.hash==='#zh'));
addEventListener('hashchange',()=>language(location.hash==='#zh'));
)js";

// Each input is checked against its answer; empty ones are passed over. The reason appears after the first try.
constexpr const char* kAnswerScript = R"js(
function check(event){event.preventDefault();let tried=false;
answers.forEach((answer,i)=>{const out=document.getElementById('out'+i),text=document.getElementById('in'+i).value.trim();
out.className='';out.textContent='';if(text==='')return;tried=true;
const zh=document.documentElement.classList.contains('zh');
let right;if(answer.words)right=answer.words.some(w=>w.toLowerCase()===text.toLowerCase());
else{const given=Number(text.replace('−','-'));if(Number.isNaN(given)){out.className='wrong';
out.textContent=zh?'这不是数字':'this is no number';return;}
right=Math.abs(given-answer.value)<=answer.tolerance+1e-12*Math.abs(answer.value);}
out.className=right?'right':'wrong';
out.textContent=(right?(zh?'正确：':'right: '):(zh?'不对，是 ':'no, it is '))+answer.text;});
if(tried)document.getElementById('reason').hidden=false;}
)js";

std::string both(const char* tag, const Bilingual& text, const std::string& attributes = "") {
  const auto one = [&](const char* language, const std::string& words) {
    return std::string("<") + tag + " class=\"" + language + (attributes.empty() ? "" : " " + attributes) + "\">" +
           escape(words) + "</" + tag + ">";
  };
  return one("en", text.en) + one("zh", text.zh) + "\n";
}

std::string link(const std::string& page, const Bilingual& text) {
  return "<a data-page=\"" + escape(page) + "\" href=\"" + escape(page) + "\">" + both("span", text) + "</a>";
}

std::string page_of(const Lesson& lesson) { return lesson.name + ".html"; }

std::string whole_page(const std::string& title, const std::string& script, const std::string& body) {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\">\n<title>" +
         escape(title) + "</title>\n<style>" + kStyle + "</style>\n<script>" + kLanguageScript + script +
         "</script>\n</head>\n<body>\n<main>\n" + body + "</main>\n</body>\n</html>\n";
}

std::string header(const Bilingual& title) {
  return "<header><h1>" + both("span", title) +
         "</h1><button class=\"language\" type=\"button\" onclick=\"toggle()\">" + both("span", {"中文", "English"}) +
         "</button></header>\n";
}

// For a script element: JSON whose text cannot close it.
std::string script_data(const LessonResult& result) {
  nlohmann::ordered_json answers = nlohmann::ordered_json::array();
  for (const LessonAnswer& answer : result.answers) {
    nlohmann::ordered_json one = {{"text", answer.text()}};
    if (answer.words.empty())
      one["value"] = answer.value, one["tolerance"] = answer.tolerance;
    else
      one["words"] = answer.words;
    answers.push_back(one);
  }
  std::string text = answers.dump();
  for (size_t at = 0; (at = text.find('<', at)) != text.npos;) text.replace(at, 1, "\\u003c");
  return "const answers=" + text + ";\n";
}

std::string answer_form(const LessonResult& result) {
  std::string form = "<form onsubmit=\"check(event)\">\n";
  for (size_t i = 0; i < result.answers.size(); ++i) {
    const std::string n = std::to_string(i);
    form += "<div><label for=\"in" + n + "\">" + both("span", result.answers[i].asked) + "</label><input id=\"in" + n +
            "\" autocomplete=\"off\" spellcheck=\"false\"><output id=\"out" + n + "\" for=\"in" + n +
            "\" aria-live=\"polite\"></output></div>\n";
  }
  return form + "<div><button type=\"submit\">" + both("span", {"Check", "检查"}) + "</button></div>\n</form>\n" +
         "<div id=\"reason\" hidden>" + both("p", result.reason) + "</div>\n";
}

std::string solution(const Lesson& lesson, const LessonResult& result) {
  std::string text = "<details><summary>" + both("span", {"Solution", "解答"}) + "</summary>\n<ol>\n";
  for (const Bilingual& step : lesson.steps) text += "<li>" + both("span", step) + "</li>\n";
  text += "</ol>\n<ul>\n";
  for (const Bilingual& line : result.found) text += "<li>" + both("span", line) + "</li>\n";
  return text + "</ul>\n" + both("p", result.reason) + "<figure>" + lesson_picture(result) + "<figcaption>" +
         both("span", {"Drawn by this run.", "本次运行绘制。"}) + "</figcaption></figure>\n</details>\n";
}

std::string commands(const Lesson& lesson) {
  std::string line = "fovea lesson " + lesson.name + (lesson.trains ? " --train" : "");
  for (const LessonFlag& flag : lesson.flags)
    if (!flag.standard.empty()) line += " --" + flag.name + " \"" + flag.standard + "\"";
  std::string text =
      both("h2", {"Run it and change it", "运行并改动"}) + "<pre>" + escape(line) + " --solution</pre>\n";
  if (lesson.flags.empty()) return text;
  text += "<ul>\n";
  for (const LessonFlag& flag : lesson.flags)
    text += "<li><code>--" + escape(flag.name) + "</code> " + both("span", flag.meaning) + "</li>\n";
  return text + "</ul>\n";
}

std::string neighbours(size_t i) {
  const auto& all = lessons();
  const auto to = [&](size_t j, const std::string& before, const std::string& after) {
    return link(page_of(all[j]), {before + all[j].title.en + after, before + all[j].title.zh + after});
  };
  return "<nav>" + (i > 0 ? to(i - 1, "← ", "") : std::string("<span></span>")) +
         link("index.html", {"All lessons", "全部课程"}) +
         (i + 1 < all.size() ? to(i + 1, "", " →") : std::string("<span></span>")) + "</nav>\n";
}

std::string lesson_page(size_t i, const LessonSiteOptions& options) {
  const Lesson& lesson = lessons()[i];
  std::string body = header(lesson.title) + "<p class=\"row\">" + escape(lesson.row) + "</p>\n" +
                     both("p", lesson.question, "question") + "<div class=\"equation\">" + escape(lesson.equation) +
                     "</div>\n";
  std::string script;
  if (lesson.trains && !options.train) {
    body += both("p", {"The answer comes from a training of " + lesson.duration + ", which this site was made without.",
                       "答案来自约 " + lesson.duration + " 的训练；本网站制作时没有训练。"});
  } else {
    const LessonResult result = run_lesson(lesson, {}, options.seed);
    script = script_data(result) + kAnswerScript;
    body += answer_form(result) + solution(lesson, result);
  }
  body += commands(lesson) +
          both("p", {"From equation to code and test: docs/explanation/" + lesson.page,
                     "从公式到代码与测试：docs/explanation/" + lesson.page}) +
          neighbours(i) + "<footer>fovea " + kVersion + ", seed " + std::to_string(options.seed) + "</footer>\n";
  return whole_page(lesson.title.en + " · Fovea", script, body);
}

std::string index_page() {
  std::string body =
      header({"Attention, hands on", "动手学注意力"}) +
      both("p", {"Each lesson asks a question that you can answer with paper, with the command given, or by "
                 "guessing. The answer was computed when this site was made.",
                 "每课提一个问题：可以用纸笔、用给出的命令，或先猜。答案在生成本网站时现算。"}) +
      "<ul class=\"list\">\n";
  for (const Lesson& lesson : lessons())
    body += "<li><span class=\"row\">" + escape(lesson.row) + "</span><span>" + link(page_of(lesson), lesson.title) +
            "</span>" + both("p", lesson.question) + "</li>\n";
  return whole_page("Attention, hands on · Fovea", "", body + "</ul>\n");
}
}  // namespace

size_t write_lesson_site(const std::filesystem::path& folder, const LessonSiteOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError(folder, "cannot be made: " + error.message());
  for (size_t i = 0; i < lessons().size(); ++i)
    report::save_file(folder / page_of(lessons()[i]), lesson_page(i, options));
  report::save_file(folder / "index.html", index_page());
  return lessons().size();
}

}  // namespace fovea::recipes
